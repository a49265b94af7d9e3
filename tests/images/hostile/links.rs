//! Links, and what is written through them.

use super::*;

hostile! {
    // Through a link to the outside: there is no such place inside.
    through_absolute_link: No("not a directory"), |p| new().symlink("l", &p.outside()).file("l/x", "x");
    through_relative_link: No("not a directory"), |_| new().symlink("l", "../outside").file("l/x", "x");
    through_far_relative_link: No("not a directory"), |_| {
        new().symlink("l", "../../../../../../tmp").file("l/x", "x")
    };
    through_link_below_a_directory: No("not a directory"), |_| {
        new().dir("d/", 0o755).symlink("d/l", "../../outside").file("d/l/x", "x")
    };
    through_link_as_directory: No("not a directory"), |p| {
        new().symlink("l", &p.outside()).dir("l/directory/", 0o700)
    };
    through_link_as_whiteout: No("not a directory"), |p| new().symlink("l", &p.outside()).file("l/.wh.file", "");
    through_link_as_opaque_marker: No("not a directory"), |p| {
        new().symlink("l", &p.outside()).file("l/.wh..wh..opq", "")
    };
    through_link_as_hard_link_source: No("not in this layer"), |p| {
        new().symlink("l", &p.outside()).hard_link("x", "l/file")
    };
    through_link_as_hard_link_place: No("not a directory"), |p| {
        file("a").symlink("l", &p.outside()).hard_link("l/x", "a")
    };
    through_link_to_proc: No("not a directory"), |_| new().symlink("l", "/proc/self/root").file("l/x", "x");
    through_link_to_cwd: No("not a directory"), |_| new().symlink("l", "/proc/self/cwd").file("l/x", "x");
    through_link_to_descriptor: No("not a directory"), |_| new().symlink("l", "/dev/fd/3").file("l/x", "x");
    through_link_to_root_is_inside: Tree(&["l", "x"]), |_| new().symlink("l", "/").file("l/x", "x");
    through_link_upwards_is_inside: Tree(&["l", "x"]), |_| new().symlink("l", "../..").file("l/x", "x");
    through_link_to_own_directory: Tree(&["d", "d/x", "l"]), |_| {
        new().dir("d/", 0o755).symlink("l", "d").file("l/x", "x")
    };
    through_absolute_link_to_own_directory: Tree(&["d", "d/e", "d/e/x", "l"]), |_| {
        new().dir("d/e/", 0o755).symlink("l", "/d/e").file("l/x", "x")
    };
    through_link_to_a_file: No("parent"), |_| file("f").symlink("l", "f").file("l/x", "x");
    through_a_file: No("not a directory"), |_| file("f").file("f/x", "x");
    through_chain_of_links: Tree(&["a", "b", "c", "d", "d/x"]), |_| {
        new().dir("d/", 0o755).symlink("c", "d").symlink("b", "c").symlink("a", "b").file("a/x", "x")
    };
    through_two_links_that_are_a_loop: No("parent"), |_| {
        new().symlink("a", "b").symlink("b", "a").file("a/x", "x")
    };
    through_link_to_itself: No("parent"), |_| new().symlink("a", "a").file("a/x", "x");
    through_41_links: No("parent"), |_| {
        let chain = (0..41).fold(new().dir("l41/", 0o755), |layer, n| {
            layer.symlink(&format!("l{n}"), &format!("l{}", n + 1))
        });
        chain.file("l0/x", "x")
    };

    // A link in the last place is replaced, never followed.
    file_over_link_to_outside: Line("l", "file 1 "), |p| {
        new().symlink("l", &format!("{}/file", p.outside())).file("l", "x")
    };
    file_over_dangling_link: Tree(&["l"]), |p| new().symlink("l", &format!("{}/new", p.outside())).file("l", "x");
    directory_over_link: Line("l", "mode=700"), |p| new().symlink("l", &p.outside()).dir("l/", 0o700);
    fifo_over_link: Line("l", "fifo"), |p| {
        new().symlink("l", &format!("{}/file", p.outside())).head(Head::new(b'6', "l"), "")
    };
    link_over_link: Line("l", "link to \"other\""), |p| new().symlink("l", &p.outside()).symlink("l", "other");
    hard_link_over_link: Line("l", "same as \"a\""), |p| {
        file("a").symlink("l", &format!("{}/file", p.outside())).hard_link("l", "a")
    };
    whiteout_of_a_links_target: Tree(&["d", "d/f", "l"]), |_| {
        new().dir("d/", 0o755).file("d/f", "").symlink("l", "d/f").file(".wh.l", "")
    };
    link_attributes_are_its_own: Line("l", "time=1600000000."), |p| new().symlink("l", &p.outside());

    // Directories that turn into links and back.
    directory_to_link_then_file_in_it: No("not a directory"), |p| {
        new().dir("d/", 0o755).file("d/a", "").symlink("d", &p.outside()).file("d/b", "")
    };
    directory_to_link_and_back: Tree(&["d", "d/b"]), |p| {
        new()
            .dir("d/", 0o755)
            .file("d/a", "")
            .symlink("d", &p.outside())
            .dir("d/", 0o755)
            .file("d/b", "")
    };
    parent_to_link_after_use: No("not a directory"), |p| {
        new().file("a/b/c", "").symlink("a", &p.outside()).file("a/b/d", "")
    };
    attributes_of_a_directory_that_became_a_link: Line("d", "link to"), |p| {
        new().dir("d/", 0o7777).symlink("d", &p.outside())
    };
    attributes_behind_a_parent_that_became_a_link: Line("other/d", "mode=700"), |_| {
        new()
            .dir("p/", 0o755)
            .dir("p/d/", 0o7777)
            .dir("other/", 0o755)
            .dir("other/d/", 0o700)
            .symlink("p", "other")
    };

    // Hard links.
    hard_link_upwards: No(UP), |_| new().hard_link("l", "../outside/file");
    hard_link_to_outside: No("not in this layer"), |p| {
        new().long(b'K', format!("{}/file", p.outside())).hard_link("l", "")
    };
    hard_link_to_nothing: No("not in this layer"), |_| new().hard_link("l", "missing");
    hard_link_to_a_later_entry: No("not in this layer"), |_| new().hard_link("l", "f").file("f", "");
    hard_link_to_itself: No("not in this layer"), |_| new().hard_link("l", "l");
    hard_link_to_itself_when_it_is_there: Tree(&["l"]), |_| file("l").hard_link("l", "l");
    hard_link_said_twice: Line("l", "same as \"a\""), |_| file("a").hard_link("l", "a").hard_link("l", "a");
    hard_link_to_a_directory: No("directory"), |_| new().dir("d/", 0o755).hard_link("l", "d");
    hard_link_to_the_root: No("directory"), |_| new().hard_link("l", ".");
    hard_link_without_target: No("without a target"), |_| new().hard_link("l", "");
    hard_link_to_a_whiteout: No("whiteout"), |_| file(".wh.w").hard_link("l", "w");
    hard_link_to_a_link_is_that_link: Line("m", "same as \"l\""), |p| {
        new().symlink("l", &format!("{}/file", p.outside())).hard_link("m", "l")
    };
    hard_link_to_a_link_then_file_over_it: Line("l", "link to"), |p| {
        new().symlink("l", &p.outside()).hard_link("m", "l").file("m", "x")
    };
    hard_link_through_a_loop: No("not in this layer"), |_| {
        new().symlink("a", "b").symlink("b", "a").hard_link("l", "a/x")
    };
    hard_link_with_a_size: Line("l", "file 5 "), |_| {
        new().file("a", "12345").head_as_is(Head::new(b'1', "l").link("a").size(5), "")
    };
    hard_link_to_a_fifo: Line("l", "fifo"), |_| new().head(Head::new(b'6', "f"), "").hard_link("l", "f");
    hard_link_replaced_leaves_the_other: Line("a", "file 1 "), |_| {
        file("a").hard_link("b", "a").file("b", "longer")
    };
    hard_link_named_as_whiteout: Tree(&["a", "-w"]), |_| file("a").hard_link(".wh.w", "a");
    symlink_without_target: No("without a target"), |_| new().symlink("l", "");
    symlink_with_a_size: No("cannot have data"), |_| {
        new().head(Head::new(b'2', "l").link("x"), "data")
    };
    symlink_of_4096_bytes: No("too long"), |_| new().long(b'K', "n".repeat(4096)).symlink("l", "");
}
