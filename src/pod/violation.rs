//! What is wrong with a definition, and where.

use std::fmt;

/// One step from the root of a definition to a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Field(String),
    Item(usize),
}

/// The place of a value in a definition.
///
/// It has two spellings: `/containers(0)/name`, which Marathon's clients expect from the API, and
/// `containers[0].name`, which people read on a terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Vec<Step>);

impl Place {
    pub fn root() -> Self {
        Place::default()
    }

    pub fn field(&self, name: &str) -> Self {
        self.step(Step::Field(name.to_owned()))
    }

    pub fn item(&self, index: usize) -> Self {
        self.step(Step::Item(index))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Place(steps)
    }

    /// The API's spelling: `/containers(0)/name`; the root is `/`.
    pub fn slashed(&self) -> String {
        if self.0.is_empty() {
            return "/".to_owned();
        }
        let mut text = String::new();
        for step in &self.0 {
            match step {
                Step::Field(name) => text.extend(["/", name]),
                Step::Item(index) => text.push_str(&format!("({index})")),
            }
        }
        text
    }
}

/// The spelling for people: `containers[0].name`; the root is `the pod`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the pod");
        }
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Which half of the checks a violation comes from; the API words its answer accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The JSON does not have the shape of a pod ("Invalid JSON"). `key` is Marathon's message id.
    Shape { key: &'static str },
    /// The shape is right but a rule is broken ("Object is not valid").
    Rule,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub place: Place,
    pub kind: Kind,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything that is wrong, in the order of the definition. Never empty when it is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentences())]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    pub fn shape(&mut self, place: &Place, key: &'static str, message: impl Into<String>) {
        self.0.push(Violation {
            place: place.clone(),
            kind: Kind::Shape { key },
            message: message.into(),
        });
    }

    pub fn rule(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(Violation {
            place: place.clone(),
            kind: Kind::Rule,
            message: message.into(),
        });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the JSON does not even have the shape of a pod.
    pub fn concern_the_shape(&self) -> bool {
        self.0
            .iter()
            .any(|violation| matches!(violation.kind, Kind::Shape { .. }))
    }

    fn sentences(&self) -> String {
        self.0
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_spelling_for_clients_and_one_for_people() {
        let port = Place::root()
            .field("containers")
            .item(1)
            .field("endpoints")
            .item(0)
            .field("hostPort");
        assert_eq!(port.slashed(), "/containers(1)/endpoints(0)/hostPort");
        assert_eq!(port.to_string(), "containers[1].endpoints[0].hostPort");
        assert_eq!(Place::root().slashed(), "/");
    }
}
