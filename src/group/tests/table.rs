//! The life of a member, cell by cell.

use std::time::Duration;

use super::scene::{code, failure};
use crate::group::{
    state::{Act, Input, State, Turn},
    verdict::{Cause, Fate},
};

const NOW: Duration = Duration::from_secs(100);
const LATER: Duration = Duration::from_secs(110);

fn states() -> Vec<(&'static str, State)> {
    let (cause, since) = (Cause::Requested, Duration::ZERO);
    vec![
        ("preparing", State::Preparing),
        ("gated", State::Gated),
        ("releasing", State::Releasing),
        ("held", State::Held),
        ("running", State::Running { since, expires: None }),
        (
            "running, expired",
            State::Running {
                since,
                expires: Some(NOW),
            },
        ),
        ("discarding", State::Discarding { cause: cause.clone() }),
        (
            "stopping",
            State::Stopping {
                cause: cause.clone(),
                since,
                deadline: LATER,
            },
        ),
        (
            "stopping, late",
            State::Stopping {
                cause: cause.clone(),
                since,
                deadline: NOW,
            },
        ),
        ("killing", State::Killing { cause, since }),
        ("ended", State::Ended(Fate::Finished)),
    ]
}

fn inputs() -> Vec<Input> {
    let kill = |deadline| Input::Kill {
        cause: Cause::Shutdown,
        deadline,
    };
    vec![
        Input::Prepared,
        Input::PrepareFailed(failure("bad")),
        Input::Open,
        Input::Held,
        Input::Begin { expires: None },
        Input::StartFailed(failure("bad")),
        kill(LATER + LATER),
        kill(NOW + Duration::from_secs(1)),
        kill(NOW),
        Input::Due,
        Input::Discarded,
        Input::Exited(code(0)),
    ]
}

fn cell(turn: &Turn) -> String {
    let acts = |acts: &[Act]| -> String {
        let letters = acts.iter().map(|act| match act {
            Act::Release => "R",
            Act::Begin => "B",
            Act::Discard => "D",
            Act::Stop => "S",
            Act::Kill => "K",
        });
        letters.map(|l| format!("!{l}")).collect()
    };
    match turn {
        Turn::Stay => "-".into(),
        Turn::Odd => "odd".into(),
        Turn::Act(a) => acts(a),
        Turn::Go(state, a) => format!("{}{}", state.name().get(..4).unwrap_or_default(), acts(a)),
        Turn::End(verdict) => match verdict.fate {
            Fate::Finished => "FIN".into(),
            Fate::Failed => "FAIL".into(),
            Fate::Killed => "KILL".into(),
            Fate::Dropped => "DROP".into(),
        },
    }
}

/// Reads: in this row's state, this column's input leads to that state (its first letters) and asks for that (`!`
/// Release, Begin, Discard, Stop, Kill), or to that end (capitals), or to nothing (`-`), or to a complaint about the shell.
const TABLE: &str = "
                  Prepared PrepareFailed Open   Held Begin  StartFailed Kill+   Kill    Kill0     Due      Discarded Exited
preparing         gate     FAIL          odd    odd  odd    odd         disc!D  disc!D  disc!D    -        FAIL      FAIL
gated             odd      FAIL          rele!R odd  odd    odd         disc!D  disc!D  disc!D    -        FAIL      FAIL
releasing         odd      odd           odd    held odd    FAIL        disc!D  disc!D  disc!D    -        FAIL      FAIL
held              odd      odd           odd    odd  runn!B FAIL        disc!D  disc!D  disc!D    -        FAIL      FAIL
running           odd      odd           odd    odd  odd    odd         stop!S  stop!S  kill!S!K  -        FAIL      FIN
running, expired  odd      odd           odd    odd  odd    odd         stop!S  stop!S  kill!S!K  kill!S!K FAIL      FIN
discarding        -        KILL          odd    -    odd    KILL        -       -       -         -        KILL      KILL
stopping          odd      odd           odd    odd  odd    odd         -       stop    kill!K    -        KILL      KILL
stopping, late    odd      odd           odd    odd  odd    odd         -       -       -         kill!K   KILL      KILL
killing           odd      odd           odd    odd  odd    odd         !K      !K      !K        -        KILL      KILL
ended             -        -             -      -    -      -           -       -       -         -        -         -
";

#[test]
fn every_cell_of_the_table_is_as_written() {
    let mut rows = TABLE.lines().filter(|l| !l.trim().is_empty());
    let columns: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
    assert_eq!(columns.len(), inputs().len());
    for (name, state) in states() {
        let row = rows.next().unwrap();
        let (head, cells) = row.split_at(18);
        assert_eq!(head.trim(), name);
        let cells: Vec<&str> = cells.split_whitespace().collect();
        for ((input, column), expected) in inputs().into_iter().zip(&columns).zip(&cells) {
            let turn = state.turn(input, NOW);
            assert_eq!(cell(&turn), *expected, "{name} × {column}");
        }
        assert_eq!(cells.len(), columns.len(), "{name}");
    }
    assert_eq!(rows.next(), None);
}

#[test]
fn the_first_cause_stands() {
    for (name, state) in states() {
        let again = Input::Kill {
            cause: Cause::Shutdown,
            deadline: NOW,
        };
        if let (
            State::Stopping { .. },
            Turn::Go(State::Stopping { cause, .. } | State::Killing { cause, .. }, _),
        ) = (&state, state.turn(again, NOW))
        {
            assert_eq!(cause, Cause::Requested, "{name}");
        }
    }
}
