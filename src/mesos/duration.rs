//! Durations as Mesos writes them in text: `5secs`, `1.5secs`, `15mins` (wire file, section 7).
