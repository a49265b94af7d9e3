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
}
