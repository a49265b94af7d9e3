//! Headers that say two things, or nothing sensible.

use super::*;

const MALFORMED: &str = "PAX record is malformed";

hostile! {
    // PAX.
    pax_size_larger_than_header: Line("f", "file 600 "), |_| {
        new().pax(&[("size", b"600")]).head_as_is(Head::new(b'0', "f").size(5), [b'x'; 600])
    };
    pax_size_smaller_than_header: Tree(&["f", "g"]), |_| {
        new().pax(&[("size", b"5")]).head_as_is(Head::new(b'0', "f").size(600), "12345").file("g", "")
    };
    pax_size_beyond_the_archive: No("middle of an entry"), |_| {
        new().pax(&[("size", b"60000")]).head_as_is(Head::new(b'0', "f"), "x")
    };
    pax_size_beyond_the_budget: No("unpacks to more"), |_| {
        new().pax(&[("size", b"9223372036854775807")]).head_as_is(Head::new(b'0', "f"), "x")
    };
    pax_size_negative: No("number"), |_| new().pax(&[("size", b"-1")]).file("f", "x");
    pax_size_in_hexadecimal: No("number"), |_| new().pax(&[("size", b"0x10")]).file("f", "x");
    pax_size_of_a_directory: No("cannot have data"), |_| new().pax(&[("size", b"512")]).dir("d/", 0o755);
    pax_size_of_21_digits: No("number"), |_| new().pax(&[("size", b"100000000000000000000")]).file("f", "x");
    pax_key_twice_the_same: Tree(&["p"]), |_| new().pax(&[("path", b"p"), ("path", b"p")]).file("f", "");
    pax_key_twice_different: No("contradict"), |_| new().pax(&[("path", b"p"), ("path", b"q")]).file("f", "");
    pax_size_twice_different: No("contradict"), |_| new().pax(&[("size", b"1"), ("size", b"2")]).file("f", "x");
    pax_empty_value_means_the_header: Tree(&["f"]), |_| new().pax(&[("path", b"")]).file("f", "");
    pax_unknown_keys: Tree(&["f"]), |_| new().pax(&[("VENDOR.key", b"value"), ("comment", b"x\ny")]).file("f", "");
    pax_without_records: Tree(&["f"]), |_| new().pax_raw(b'x', b"").file("f", "");
    pax_without_equals: No(MALFORMED), |_| new().pax_raw(b'x', b"6 path\n").file("f", "");
    pax_without_key: No(MALFORMED), |_| new().pax_raw(b'x', b"5 =v\n").file("f", "");
    pax_without_newline: No(MALFORMED), |_| new().pax_raw(b'x', b"10 path=ab").file("f", "");
    pax_length_zero: No(MALFORMED), |_| new().pax_raw(b'x', b"0 path=a\n").file("f", "");
    pax_length_too_short: No(MALFORMED), |_| new().pax_raw(b'x', b"5 path=a\n").file("f", "");
    pax_length_too_long: No(MALFORMED), |_| new().pax_raw(b'x', b"99 path=a\n").file("f", "");
    pax_length_negative: No(MALFORMED), |_| new().pax_raw(b'x', b"-9 path=a\n").file("f", "");
    pax_length_overflows: No(MALFORMED), |_| new().pax_raw(b'x', b"18446744073709551616 a=b\n").file("f", "");
    pax_length_without_space: No(MALFORMED), |_| new().pax_raw(b'x', b"99999999999999999999999").file("f", "");
    pax_filled_with_nul: No(MALFORMED), |_| new().pax_raw(b'x', &[0; 100]).file("f", "");
    pax_hides_a_record_in_a_value: Tree(&["f"]), |_| {
        new().pax(&[("comment", b"x\n11 path=../e\n")]).file("f", "")
    };
    pax_twice: No("two extension headers"), |_| new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f", "");
    pax_for_nothing: No("describes no entry"), |_| file("f").pax(&[("path", b"a")]);
    pax_global_comment: Tree(&["f"]), |_| {
        new().pax_type(tar::EntryType::XGlobalHeader, &[("comment", b"1234")]).file("f", "")
    };
    pax_global_path: No("global"), |_| {
        new().pax_type(tar::EntryType::XGlobalHeader, &[("path", b"evil")]).file("f", "")
    };
    pax_global_size: No("global"), |_| {
        new().pax_type(tar::EntryType::XGlobalHeader, &[("size", b"0")]).file("f", "x")
    };
    pax_global_attribute: No("global"), |_| {
        new()
            .pax_type(tar::EntryType::XGlobalHeader, &[("SCHILY.xattr.user.x", b"y")])
            .file("f", "x")
    };
    pax_global_between_entries: Tree(&["f", "g"]), |_| {
        file("f").pax_type(tar::EntryType::XGlobalHeader, &[("comment", b"x")]).file("g", "")
    };
    pax_global_between_pax_and_entry: No("describes no entry"), |_| {
        new()
            .pax(&[("path", b"a")])
            .pax_type(tar::EntryType::XGlobalHeader, &[("comment", b"x")])
            .file("f", "")
    };
    pax_of_two_megabytes: No("extended headers"), |_| {
        new().pax(&[("comment", &vec![b'x'; 2 << 20])]).file("f", "")
    };
    pax_said_to_be_ten_gigabytes: No("extended headers"), |_| {
        new().head_as_is(Head::new(b'x', "p").field(124, &[0x80, 0, 0, 0, 0, 0, 0, 2, 0x54, 0x0b, 0xe4, 0]), "")
    };

    // GNU's long names.
    long_name_and_pax_path_agree: Tree(&["same"]), |_| {
        new().long(b'L', "same").pax(&[("path", b"same")]).file("f", "")
    };
    long_name_and_pax_path_differ: No("contradict"), |_| {
        new().long(b'L', "one").pax(&[("path", b"two")]).file("f", "")
    };
    long_link_and_pax_link_differ: No("contradict"), |_| {
        new().long(b'K', "one").pax(&[("linkpath", b"two")]).symlink("f", "")
    };
    long_name_twice: No("two extension headers"), |_| new().long(b'L', "a").long(b'L', "b").file("f", "");
    long_link_twice: No("two extension headers"), |_| new().long(b'K', "a").long(b'K', "b").symlink("f", "");
    long_name_for_nothing: No("describes no entry"), |_| file("f").long(b'L', "a");
    long_name_ends_at_nul: Tree(&["a"]), |_| new().long(b'L', "a\0b").file("f", "");
    long_names_without_end: No("extended headers"), |_| new().long(b'L', "n".repeat(1 << 20)).file("f", "");
    long_name_in_a_v7_header: No("unknown"), |_| {
        new().head(Head::new(b'L', "x").field(257, &[0; 8]), "name\0")
    };
    v7_file: Line("f", "file 1 "), |_| new().head(Head::new(0, "f").field(257, &[0; 8]), "x");
    v7_directory: Line("d", "directory"), |_| new().head(Head::new(0, "d/").field(257, &[0; 8]), "");

    // Numbers.
    size_negative: No("number"), |_| new().head_as_is(Head::new(b'0', "f").field(124, &[0xff; 12]), "");
    size_of_95_bits: No("number"), |_| {
        let mut field = [0xff; 12];
        field[0] = 0xbf;
        new().head_as_is(Head::new(b'0', "f").field(124, &field), "")
    };
    size_beyond_the_budget: No("unpacks to more"), |_| {
        new().head_as_is(Head::new(b'0', "f").field(124, &[0x80, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0]), "")
    };
    size_not_octal: No("number"), |_| new().head_as_is(Head::new(b'0', "f").field(124, b"0000000009z\0"), "");
    size_in_base_256: Line("f", "file 5 "), |_| {
        new().head_as_is(Head::new(b'0', "f").field(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]), "12345")
    };
    size_without_end: Line("f", "file 5 "), |_| {
        new().head_as_is(Head::new(b'0', "f").field(124, b"000000000005"), "12345")
    };
    mode_not_octal: No("number"), |_| new().head(Head::new(b'0', "f").field(100, b"rwxr-xr-"), "");
    user_of_31_bits: Line("f", "owner=2147483647:0 "), |_| new().pax(&[("uid", b"2147483647")]).file("f", "");
    user_of_32_bits: Line("f", "owner=2147483648:0 "), |_| new().pax(&[("uid", b"2147483648")]).file("f", "");
    user_the_last_but_one: Line("f", "owner=4294967294:0 "), |_| {
        new().pax(&[("uid", b"4294967294")]).file("f", "")
    };
    user_that_means_none: No("number"), |_| new().pax(&[("uid", b"4294967295")]).file("f", "");
    group_that_means_none: No("number"), |_| new().pax(&[("gid", b"4294967295")]).file("f", "");
    user_beyond_32_bits_does_not_wrap: No("number"), |_| new().pax(&[("uid", b"4294967296")]).file("f", "");
    group_beyond_32_bits_does_not_wrap: No("number"), |_| {
        new().head(Head::new(b'0', "f").field(116, &[0x80, 0, 0, 1, 0, 0, 0, 0]), "")
    };
    user_negative: No("number"), |_| new().pax(&[("uid", b"-1")]).file("f", "");
    user_negative_in_base_256: No("number"), |_| new().head(Head::new(b'0', "f").field(108, &[0xff; 8]), "");
    user_by_name_is_not_looked_up: Line("f", "owner=0:0 "), |_| {
        new().head(Head::new(b'0', "f").field(265, b"nobody").field(297, b"nogroup"), "")
    };

    // Times.
    time_before_1970: Line("f", "time=-86400."), |_| new().pax(&[("mtime", b"-86400")]).file("f", "");
    time_before_1970_with_fraction: Line("f", "time=-2.250000000"), |_| {
        new().pax(&[("mtime", b"-1.75")]).file("f", "")
    };
    time_before_1970_in_base_256: Line("f", "time=-1."), |_| {
        new().head(Head::new(b'0', "f").field(136, &[0xff; 12]), "")
    };
    time_in_1901: Line("f", "time=-2147483648."), |_| new().pax(&[("mtime", b"-2147483648")]).file("f", "");
    time_far_ahead: Line("f", "file 0 "), |_| new().pax(&[("mtime", b"9223372036854775807")]).file("f", "");
    time_far_ahead_in_base_256: Line("f", "file 0 "), |_| {
        new().head(Head::new(b'0', "f").field(136, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]), "")
    };
    time_not_a_number: No("number"), |_| new().pax(&[("mtime", b"yesterday")]).file("f", "");
    time_with_many_digits: Line("f", "time=1.123456789"), |_| {
        new().pax(&[("mtime", b"1.1234567891234567890")]).file("f", "")
    };
    time_of_a_directory_is_last: Line("d", "time=5."), |_| {
        new().pax(&[("mtime", b"5")]).dir("d/", 0o755).file("d/f", "")
    };

    // Attributes.
    attribute_of_the_user: Line("f", "user.a=[78]"), |_| {
        new().pax(&[("SCHILY.xattr.user.a", b"x")]).file("f", "")
    };
    attribute_with_newlines: Line("f", "user.a=[0a, 0a]"), |_| {
        new().pax(&[("SCHILY.xattr.user.a", b"\n\n")]).file("f", "")
    };
    attribute_of_overlayfs: Line("d", "time=1600000000.000000000"), |_| {
        new()
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ])
            .dir("d/", 0o755)
    };
    attribute_capability: Line("f", "security.capability="), |_| {
        let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        new().pax(&[("SCHILY.xattr.security.capability", &value)]).file("f", "")
    };
    attribute_capability_malformed: No("attributes"), |_| {
        new().pax(&[("SCHILY.xattr.security.capability", b"nonsense")]).file("f", "")
    };
    attribute_without_name: No(MALFORMED), |_| new().pax(&[("SCHILY.xattr.", b"x")]).file("f", "");
    attribute_name_with_nul: No(MALFORMED), |_| new().pax(&[("SCHILY.xattr.user.a\0b", b"x")]).file("f", "");
    attribute_too_large: No("attributes"), |_| {
        new().pax(&[("SCHILY.xattr.user.a", &[b'x'; 70_000])]).file("f", "")
    };
    attributes_too_many: No("extended attributes"), |_| {
        let names: Vec<String> = (0..300).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
        let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
        new().pax(&records).file("f", "")
    };
    attribute_of_the_user_on_a_link: Line("l", "link to"), |_| {
        new().pax(&[("SCHILY.xattr.user.a", b"x")]).symlink("l", "x")
    };
    attribute_does_not_follow_a_link: Line("l", "time=1."), |p| {
        new()
            .pax(&[("SCHILY.xattr.user.a", b"x"), ("mtime", b"1")])
            .symlink("l", &format!("{}/file", p.outside()))
    };
}
