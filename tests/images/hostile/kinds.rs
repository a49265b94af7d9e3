//! Devices, sockets, whiteouts and what else an entry can be.

use super::*;

hostile! {
    // The root of a layer is a directory.
    root_as_link: No("layer's root"), |p| new().symlink("./", &p.outside());
    root_as_hard_link: No("layer's root"), |_| file("a").hard_link(".", "a");
    root_as_device: No("layer's root"), |_| new().head(Head::new(b'4', "/").device(8, 0), "");
    root_with_set_id_bits: Line("", "mode=7755"), |_| new().dir("./", 0o7755);
    root_with_an_overlay_mark: Line("", "mode=755"), |_| new()
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir("./", 0o755);

    // One thing takes the place of another.
    file_over_file: Line("f", "file 3 "), |_| file("f").file("f", "new");
    file_over_directory: Line("d", "file 1 "), |_| new().dir("d/", 0o755).file("d/e/f", "").file("d", "x");
    directory_over_file: Line("f", "directory"), |_| file("f").dir("f/", 0o755);
    directory_over_fifo: Line("f", "directory"), |_| new().head(Head::new(b'6', "f"), "").dir("f/", 0o755);
    link_over_directory: Line("d", "link to"), |p| {
        new().dir("d/", 0o755).file("d/f", "").symlink("d", &p.outside())
    };
    fifo_over_directory: Line("d", "fifo"), |_| new().file("d/f", "").head(Head::new(b'6', "d"), "");
    directory_twice_keeps_what_is_in_it: Tree(&["d", "d/f"]), |_| {
        new().dir("d/", 0o700).file("d/f", "").dir("d/", 0o755)
    };
    file_over_set_id_file: Line("f", "mode=644"), |_| new().file_mode("f", "", 0o6755).file("f", "");
    set_id_over_its_hard_link: Line("a", "mode=644"), |_| {
        file("a").hard_link("b", "a").file_mode("b", "", 0o4755)
    };

    // Whiteouts.
    whiteout_of_nothing: No("names no file"), |_| file(".wh.");
    whiteout_of_dot: No("names no file"), |_| file(".wh..");
    whiteout_of_dot_dot: No("names no file"), |_| file(".wh...");
    whiteout_with_slash: No("names no file"), |_| new().dir(".wh./", 0o755);
    whiteout_as_directory: Tree(&["-x"]), |_| new().dir(".wh.x/", 0o755);
    whiteout_as_link: Tree(&["-x"]), |p| new().symlink(".wh.x", &p.outside());
    whiteout_as_device: Tree(&["-x"]), |_| new().head(Head::new(b'3', ".wh.x").device(1, 3), "");
    whiteout_with_data: Tree(&["-x", "y"]), |_| new().file(".wh.x", "data").file("y", "");
    whiteout_twice: Tree(&["-x"]), |_| file(".wh.x").file(".wh.x", "");
    whiteout_of_a_whiteout_name: Tree(&[]), |_| file(".wh..wh.x");
    whiteout_in_an_unknown_directory: Tree(&["d", "-d/x"]), |_| file("d/.wh.x");
    whiteout_as_parent: No("below a whiteout"), |_| file(".wh.x/y");
    whiteout_below_a_file: No("not a directory"), |_| file("f").file("f/.wh.x", "");
    whiteout_then_directory_hides: Line("x", "trusted.overlay.opaque=[79]"), |_| {
        file(".wh.x").dir("x/", 0o755)
    };
    whiteout_then_implied_directory_hides: Line("x", "trusted.overlay.opaque=[79]"), |_| {
        file(".wh.x").file("x/y", "")
    };
    directory_then_whiteout_hides: Line("x", "trusted.overlay.opaque=[79]"), |_| {
        new().dir("x/", 0o755).file(".wh.x", "")
    };
    opaque_marker_below_a_file: No("not a directory"), |_| file("f").file("f/.wh..wh..opq", "");
    opaque_marker_as_directory: Line("d", "trusted.overlay.opaque=[79]"), |_| new().dir("d/.wh..wh..opq/", 0o755);
    aufs_bookkeeping_is_left_out: Tree(&["x"]), |_| {
        new().dir(".wh..wh.plnk/", 0o700).file(".wh..wh.plnk/1.2", "").file(".wh..wh.aufs", "").file("x", "")
    };

    // Devices and other things.
    device_is_left_out: Tree(&["-null"]), |_| new().head(Head::new(b'3', "null").device(1, 3), "");
    block_device_is_left_out: Tree(&["-sda"]), |_| new().head(Head::new(b'4', "sda").device(8, 0), "");
    device_of_odd_number: Tree(&["-n"]), |_| {
        new().head(Head::new(b'3', "n").field(329, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "")
    };
    device_number_too_large: No("number"), |_| {
        new().head(Head::new(b'3', "n").field(329, &[0x80, 0, 0, 1, 0, 0, 0, 0]), "")
    };
    device_zero_is_overlayfs_own: No("0:0"), |_| new().head(Head::new(b'3', "n"), "");
    device_with_data: No("cannot have data"), |_| new().head(Head::new(b'3', "n").device(1, 3), "x");
    fifo_at_etc_passwd: Line("etc/passwd", "fifo"), |_| new().head(Head::new(b'6', "etc/passwd"), "");
    fifo_at_etc_group: Line("etc/group", "fifo"), |_| new().head(Head::new(b'6', "etc/group"), "");
    fifo_over_etc_passwd: Line("etc/passwd", "fifo"), |_| {
        file("etc/passwd").head(Head::new(b'6', "etc/passwd"), "")
    };
    fifo_with_data: No("cannot have data"), |_| new().head(Head::new(b'6', "f"), "x");
    socket: No("unknown"), |_| new().head(Head::new(b's', "s"), "");
    link_at_dev: Line("dev", "link to"), |p| new().symlink("dev", &p.outside());
    link_at_dev_null: Line("dev/null", "link to"), |p| {
        new().symlink("dev/null", &format!("{}/file", p.outside()))
    };
    link_at_dev_pts: Line("dev/pts", "link to"), |p| new().symlink("dev/pts", &p.outside());
    link_at_proc: Line("proc", "link to"), |p| new().symlink("proc", &p.outside());
    link_at_sys: Line("sys", "link to"), |p| new().symlink("sys", &p.outside());
    link_at_etc_mtab: Line("etc/mtab", "link to"), |_| new().symlink("etc/mtab", "/proc/mounts");
    file_below_proc: Tree(&["proc", "proc/self", "proc/self/exe"]), |_| file("proc/self/exe");
    set_user_id_file: Line("f", "mode=4755"), |_| new().file_mode("f", "", 0o4755);
    set_group_id_directory: Line("d", "mode=2775"), |_| new().dir("d/", 0o2775).file("d/f", "");
    set_group_id_is_not_inherited: Line("d/e", "mode=755"), |_| new().dir("d/", 0o2775).dir("d/e/", 0o755);
    sticky_directory: Line("d", "mode=1777"), |_| new().dir("d/", 0o1777);
    directory_without_rights: Line("d/f", "file 1 "), |_| new().dir("d/", 0).file("d/f", "x");
    mode_with_type_bits: Line("f", "mode=644"), |_| new().head(Head::new(b'0', "f").mode(0o120_644), "");
    mode_of_all_bits: Line("f", "mode=7777"), |_| new().head(Head::new(b'0', "f").mode(0o7777), "");
    contiguous_file_is_a_file: Line("f", "file 1 "), |_| new().head(Head::new(b'7', "f"), "x");
    directory_with_data: No("cannot have data"), |_| new().head(Head::new(b'5', "d/"), "x");
    volume_label: No("unknown"), |_| new().head(Head::gnu(b'V', "label"), "");
    multi_volume_part: No("unknown"), |_| new().head(Head::gnu(b'M', "part"), "");
    dumped_directory: No("unknown"), |_| new().head(Head::gnu(b'D', "d/"), "");
    old_long_names: No("unknown"), |_| new().head(Head::gnu(b'N', "x"), "");
    solaris_acl: No("unknown"), |_| new().head(Head::new(b'A', "x"), "");
    type_of_high_bit: No("unknown"), |_| new().head(Head::new(0xff, "x"), "");
}
