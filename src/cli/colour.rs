//! Colours are for terminals, and for those who have not said that they want none (<https://no-color.org>).

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal as _},
};

use anstyle::{AnsiColor, Style};

/// Whether what goes to standard output may be coloured.
pub(super) fn is_wanted() -> bool {
    io::stdout().is_terminal()
        && by_environment(env::var_os("NO_COLOR").as_deref(), env::var_os("TERM").as_deref())
}

fn by_environment(no_color: Option<&OsStr>, terminal: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && terminal.is_none_or(|terminal| terminal != "dumb")
}

/// How a state is painted, in the words of Mesos and of Marathon: what is well green, what is on its way yellow, what
/// failed red.
pub(super) fn of_state(word: &str) -> Style {
    match word {
        "RUNNING" | "STABLE" => AnsiColor::Green.on_default(),
        "FAILED" | "ERROR" | "LOST" | "DROPPED" | "GONE" => AnsiColor::Red.on_default().bold(),
        "DEGRADED" | "TERMINAL" | "UNREACHABLE" => AnsiColor::Red.on_default(),
        "RESTARTING" | "PENDING" | "STAGING" | "STARTING" | "KILLING" => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

/// An answer for standard output.
pub(super) fn of_answer(text: String) -> String {
    match is_wanted() {
        true => paint(&text),
        false => text,
    }
}

/// An answer with the state of each line painted: the first word that is one, after what it is the state of.
fn paint(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(paint_line).collect();
    lines.join("\n")
}

fn paint_line(line: &str) -> String {
    let mut begun = false;
    let mut place = 0;
    for word in line.split_inclusive(' ') {
        let bare = word.trim_end_matches([' ', ':', ',']);
        let style = of_state(bare);
        if begun && style != Style::new() {
            let (before, rest) = line.split_at(place);
            let after = rest.get(bare.len()..).unwrap_or_default();
            return format!("{before}{style}{bare}{style:#}{after}");
        }
        begun |= !bare.is_empty();
        place += word.len();
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_no_colours_gets_none() {
        let wanted = |no_color: Option<&str>, terminal: Option<&str>| {
            by_environment(no_color.map(OsStr::new), terminal.map(OsStr::new))
        };
        assert!(wanted(None, Some("xterm")));
        assert!(wanted(Some(""), None));
        assert!(!wanted(Some("1"), Some("xterm")));
        assert!(!wanted(None, Some("dumb")));
    }

    #[test]
    fn states_are_painted_where_they_stand() {
        for (line, painted) in [
            ("/a     STABLE  2/2", "/a     \u{1b}[32mSTABLE\u{1b}[0m  2/2"),
            (
                "/a is DEGRADED: 0 of 1",
                "/a is \u{1b}[31mDEGRADED\u{1b}[0m: 0 of 1",
            ),
            (
                "  web  FAILED  it is not RUNNING",
                "  web  \u{1b}[1m\u{1b}[31mFAILED\u{1b}[0m  it is not RUNNING",
            ),
            ("STABLE x", "STABLE x"),
            ("ID  STATUS", "ID  STATUS"),
            ("", ""),
        ] {
            assert_eq!(paint(line), painted);
        }
        assert_eq!(paint("a\nb\n"), "a\nb\n");
    }
}
