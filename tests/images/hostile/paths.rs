//! Names that lead somewhere else, or nowhere.

use super::*;

hostile! {
    // Upwards, in every field that can hold a name.
    up_in_name: No(UP), |_| file("../x");
    up_in_the_middle: No(UP), |_| file("a/../../x");
    up_and_down_again: No(UP), |_| file("a/../b");
    up_at_the_end: No(UP), |_| file("a/..");
    up_alone: No(UP), |_| new().dir("..", 0o755);
    up_alone_with_slash: No(UP), |_| new().dir("../", 0o755);
    up_after_dot: No(UP), |_| file("./../x");
    up_after_root: No(UP), |_| file("/../x");
    up_after_slashes: No(UP), |_| file("//..//x");
    up_in_prefix: No(UP), |_| new().head(Head::new(b'0', "x").prefix(".."), "x");
    up_deep_in_prefix: No(UP), |_| new().head(Head::new(b'0', "x").prefix("a/../../b"), "x");
    up_in_name_behind_prefix: No(UP), |_| new().head(Head::new(b'0', "../../x").prefix("a"), "x");
    up_in_gnu_long_name: No(UP), |_| new().long(b'L', "../x").file("y", "x");
    up_in_pax_path: No(UP), |_| new().pax(&[("path", b"../x")]).file("y", "x");
    up_in_sparse_name: No(UP), |_| new()
        .pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1"), ("GNU.sparse.name", b"../x")])
        .file("y", "x");
    up_as_directory: No(UP), |_| new().dir("../d/", 0o755);
    up_as_symlink: No(UP), |_| new().symlink("../l", "x");
    up_as_hard_link: No(UP), |_| file("a").hard_link("../l", "a");
    up_as_fifo: No(UP), |_| new().head(Head::new(b'6', "../f"), "");
    up_as_device: No(UP), |_| new().head(Head::new(b'3', "../n").device(1, 3), "");
    up_as_whiteout: No(UP), |_| file("../.wh.x");
    up_as_opaque_marker: No(UP), |_| file("../.wh..wh..opq");
    up_in_gnu_long_link: No(UP), |_| file("a").long(b'K', "../outside/file").hard_link("l", "a");
    up_in_pax_link: No(UP), |_| file("a").pax(&[("linkpath", b"../outside/file")]).hard_link("l", "a");

    // Absolute names stay inside.
    absolute_name: Tree(&["etc", "etc/x"]), |_| file("/etc/x");
    absolute_name_with_slashes: Tree(&["etc", "etc/x"]), |_| file("///etc///x");
    absolute_name_of_a_host_file: Line("etc/passwd", "file 1 "), |_| file("/etc/passwd");
    absolute_hard_link_is_inside: No("not in this layer"), |_| new().hard_link("l", "/etc/passwd");
    absolute_hard_link_to_own_file: Line("l", "same as \"etc/x\""), |_| file("etc/x").hard_link("l", "/etc/x");
    absolute_symlink_is_only_text: Line("l", "link to \"/etc/passwd\""), |_| new().symlink("l", "/etc/passwd");

    // Odd names.
    name_empty: No("empty"), |_| new().head(Head::new(b'0', ""), "x");
    name_empty_directory: No("empty"), |_| new().head(Head::new(b'5', ""), "");
    name_empty_by_long_name: No("empty"), |_| new().long(b'L', "").file("y", "x");
    name_dot_is_the_root: Line("", "mode=700"), |_| new().dir(".", 0o700);
    name_slash_is_the_root: Line("", "mode=711"), |_| new().dir("/", 0o711);
    name_dot_as_file: No("layer's root"), |_| file(".");
    name_slashes_as_file: No("layer's root"), |_| new().head(Head::new(b'6', "//"), "");
    name_three_dots: Tree(&["..."]), |_| file("...");
    name_dots_and_letters: Tree(&["..a", "a.."]), |_| file("..a").file("a..", "");
    name_with_newline: Tree(&["a\\nb"]), |_| file("a\nb");
    name_with_escape: Tree(&["a\\u{1b}[2Jb"]), |_| file("a\x1b[2Jb");
    name_with_backslashes: Tree(&["..\\\\..\\\\x"]), |_| file("..\\..\\x");
    name_of_spaces: Tree(&["  "]), |_| file("  ");
    name_not_utf_8: Tree(&["\u{fffd}\u{fffd}"]), |_| new().head(Head::new(b'0', [0xff, 0xfe]), "x");
    name_pax_not_utf_8: Tree(&["\u{fffd}"]), |_| new().pax(&[("path", &[0xc0])]).file("y", "x");
    name_pax_with_newline: Tree(&["a\\nb=c"]), |_| new().pax(&[("path", b"a\nb=c")]).file("y", "x");
    name_pax_with_nul: No("NUL"), |_| new().pax(&[("path", b"a\0b")]).file("y", "x");
    link_pax_with_nul: No("NUL"), |_| new().pax(&[("linkpath", b"a\0b")]).symlink("y", "x");
    name_of_64_kib: No("longer than 4096"), |_| new().long(b'L', "a/".repeat(32 << 10)).file("y", "x");
    name_of_64_kib_in_pax: No("longer than 4096"), |_| new()
        .pax(&[("path", "a/".repeat(32 << 10).as_bytes())])
        .file("y", "x");
    link_of_64_kib: No("longer than 4096"), |_| new().long(b'K', "a/".repeat(32 << 10)).symlink("y", "x");
    component_of_255_bytes: Line("", "directory"), |_| new().long(b'L', "n".repeat(255)).file("y", "x");
    component_of_256_bytes: No("too long"), |_| new().long(b'L', "n".repeat(256)).file("y", "x");
    names_that_differ_in_case: Tree(&["A", "a"]), |_| file("a").file("A", "");
    names_that_differ_in_normal_form: Tree(&["e\u{301}", "\u{e9}"]), |_| file("\u{e9}").file("e\u{301}", "");
    name_with_trailing_slash_and_data: No("cannot have data"), |_| new().head(Head::new(b'0', "d/"), "data");
    name_with_trailing_slash_is_a_directory: Line("d", "directory"), |_| new().head(Head::new(b'0', "d/"), "");
    deep_path: Line("d/d/d/d/d/d/d/d", "directory"), |_| new().long(b'L', "d/".repeat(99)).dir("y", 0o755);
    deeper_than_implied_directories_may_be: No("without an entry"), |_| {
        new().long(b'L', "d/".repeat(2000)).dir("y", 0o755)
    };
}
