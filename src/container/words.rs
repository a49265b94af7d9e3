//! What members say, as one line for people.

/// No more of it is told.
const LONGEST: usize = 200;

/// The last line that says something and is none of our `notes`.
pub fn last_line(tail: &[u8], notes: &[String]) -> Option<String> {
    let text = String::from_utf8_lossy(tail);
    let mut lines = text.lines().rev().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !notes.iter().any(|note| note.trim() == *line))?;
    let plain: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut words: String = plain.trim().chars().take(LONGEST).collect();
    if words.chars().count() == LONGEST {
        words.push('…');
    }
    Some(words)
}
