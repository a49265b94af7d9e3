//! Words of strangers (members, images, servers), made fit for a terminal.

/// One line without anything that a terminal would obey: what came after the last carriage return, as a terminal
/// would end up showing; other control characters, and those that turn the direction of writing, become `\u{fffd}`.
pub(super) fn line(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    let shown = text.rsplit('\r').next().unwrap_or(text);
    shown
        .chars()
        .map(|c| match c {
            '\t' => '\t',
            c if c.is_control() || turns(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// The same for a line that may keep its colours: sequences that choose how letters look are obeyed, for this line and
/// no further. Without `colours` they are left out.
pub(super) fn coloured_line(text: &str, colours: bool) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    let mut rest = text.rsplit('\r').next().unwrap_or(text);
    if !rest.contains(LOOKS) {
        return line(rest);
    }
    let mut shown = String::new();
    let mut painted = false;
    while let Some((before, after)) = rest.split_once(LOOKS) {
        shown.push_str(&line(before));
        let digits = after
            .bytes()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b';' | b':'))
            .count();
        match after.split_at_checked(digits) {
            Some((choice, end)) if end.starts_with('m') => {
                if colours {
                    shown.push_str(LOOKS);
                    shown.push_str(choice);
                    shown.push('m');
                    painted = true;
                }
                rest = end.get(1..).unwrap_or_default();
            }
            _ => {
                shown.push_str("\u{fffd}[");
                rest = after;
            }
        }
    }
    shown.push_str(&line(rest));
    if painted {
        shown.push_str("\u{1b}[0m");
    }
    shown
}

/// Begins a sequence that, ending with `m`, chooses how letters look (ECMA-48, SGR).
const LOOKS: &str = "\u{1b}[";

/// `17 bytes`, `1.5 MB`.
pub(super) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit / (unit / 10));
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} kB", tenths(1_000)),
        1_000_000..1_000_000_000 => format!("{} MB", tenths(1_000_000)),
        _ => format!("{} GB", tenths(1_000_000_000)),
    }
}

/// Several lines, each made fit.
pub(super) fn lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(line).collect();
    lines.join("\n")
}

/// Members in a sentence about one of their own instance: `web.1` instead of `shop.instance-….web.1`.
pub(super) fn shorter(sentence: &str, instance: &str) -> String {
    sentence.replace(&format!("`{instance}."), "`")
}

fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        for (written, shown) in [
            ("plain\tä✓", "plain\tä✓"),
            ("\x1b[2J\x1b]0;title\x07", "\u{fffd}[2J\u{fffd}]0;title\u{fffd}"),
            ("10%\r20%\r100%\r\n", "100%"),
            ("\u{9b}31m\u{7f}\0", "\u{fffd}31m\u{fffd}\u{fffd}"),
            ("gpj.\u{202e}exe", "gpj.\u{fffd}exe"),
            ("", ""),
        ] {
            assert_eq!(line(written), shown);
        }
        assert_eq!(
            shorter("member `a.instance-1.web.2` of", "a.instance-1"),
            "member `web.2` of"
        );
        assert_eq!(lines("a\x1b\nb\r"), "a\u{fffd}\nb");
    }

    #[test]
    fn colours_are_kept_to_their_line_and_all_else_is_not_obeyed() {
        for (written, coloured, plain) in [
            ("plain", "plain", "plain"),
            ("\x1b[31mred", "\x1b[31mred\x1b[0m", "red"),
            ("\x1b[1;38:5:9ma\x1b[mb", "\x1b[1;38:5:9ma\x1b[mb\x1b[0m", "ab"),
            ("\x1b[2J\x1b[31mx", "\u{fffd}[2J\x1b[31mx\x1b[0m", "\u{fffd}[2Jx"),
            (
                "\x1b[?25lx\x1b[3",
                "\u{fffd}[?25lx\u{fffd}[3",
                "\u{fffd}[?25lx\u{fffd}[3",
            ),
            (
                "\x1b[31\x07m\x1b]0;t\x07",
                "\u{fffd}[31\u{fffd}m\u{fffd}]0;t\u{fffd}",
                "\u{fffd}[31\u{fffd}m\u{fffd}]0;t\u{fffd}",
            ),
            ("a\r\x1b[32mok\r\n", "\x1b[32mok\x1b[0m", "ok"),
        ] {
            assert_eq!(coloured_line(written, true), coloured, "{written:?}");
            assert_eq!(coloured_line(written, false), plain, "{written:?}");
        }
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(1_800_000_000), "1.8 GB");
        assert_eq!(size(12_345_678), "12.3 MB");
    }
}
