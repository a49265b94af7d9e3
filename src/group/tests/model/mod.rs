//! Every reachable state of small worlds (L2), and from each of them the way to the end.
//!
//! Time passes only by ticks, so what tells two states apart is how far their deadlines are from now.

mod checks;
mod world;

use std::collections::{HashSet, VecDeque};

use self::world::{Budget, Shell, World};
use crate::group::Settings;

/// Walks everything reachable from a world; gives the numbers of states and of edges.
fn explore(first: World) -> (usize, usize) {
    let mut seen: HashSet<u64> = HashSet::from([first.key()]);
    let mut queue = VecDeque::from([first]);
    let (mut edges, mut ends) = (0, 0);
    let mut names: HashSet<&'static str> = HashSet::new();
    let mut gone = HashSet::new();
    while let Some(world) = queue.pop_front() {
        let moves = world.moves();
        assert!(
            world.machine.is_done() || !moves.is_empty() || world.shell.contains(&Shell::Running),
            "stuck: {world:?}"
        );
        ends += usize::from(world.machine.is_done());
        world.check_end(&mut gone);
        names.extend(world.machine.members.values().map(|m| m.state.name()));
        for step in moves {
            edges += 1;
            let next = world.next(step);
            if seen.insert(next.key()) {
                queue.push_back(next);
            }
        }
    }
    assert!(ends > 0);
    // A group of one passes its gate, and is let go, in one step each.
    let waits = names.contains("gated");
    assert_eq!(
        names.len(),
        7 + 2 * usize::from(waits),
        "every state of a member is reached: {names:?}"
    );
    (seen.len(), edges)
}

const NOTHING: Budget = Budget {
    kills: 0,
    losses: 0,
    shutdowns: 0,
    unhealthy: 0,
    late_groups: 0,
    failures: 0,
    one_by_one: false,
};

fn walk(name: &str, checkpoint: bool, groups: &[&[&str]], budget: Budget) {
    let settings = Settings {
        checkpoint,
        ..Settings::default()
    };
    let (states, edges) = explore(World::new(settings, groups, budget));
    println!("{name}: {states} states, {edges} edges, each checked");
}

#[test]
fn l2_one_member_everything() {
    let budget = Budget {
        kills: 2,
        losses: 1,
        shutdowns: 1,
        unhealthy: 1,
        late_groups: 1,
        failures: 1,
        one_by_one: true,
    };
    walk("1 member, everything", true, &[&["a"]], budget);
}

#[test]
fn l2_two_members_with_acknowledgements_one_by_one() {
    let budget = Budget {
        kills: 1,
        losses: 1,
        one_by_one: true,
        ..NOTHING
    };
    walk("2 members, 1 kill, 1 loss", true, &[&["a", "b"]], budget);
}

#[test]
fn l2_two_members_without_checkpointing() {
    let budget = Budget {
        kills: 2,
        losses: 1,
        shutdowns: 1,
        unhealthy: 1,
        failures: 2,
        ..NOTHING
    };
    walk("2 members, no checkpointing", false, &[&["a", "b"]], budget);
}

#[test]
fn l2_three_members() {
    let budget = Budget {
        failures: 1,
        ..NOTHING
    };
    walk("3 members, 1 failure", true, &[&["a", "b", "c"]], budget);
}

#[test]
fn l2_two_groups() {
    let budget = Budget { kills: 1, ..NOTHING };
    walk("2 groups, 1 kill", true, &[&["a"], &["b"]], budget);
}

#[test]
#[ignore = "long: run with --ignored"]
fn l2_three_members_at_length() {
    let budget = Budget {
        kills: 2,
        losses: 1,
        failures: 1,
        ..NOTHING
    };
    walk(
        "3 members, 2 kills, 1 loss, 1 failure",
        true,
        &[&["a", "b", "c"]],
        budget,
    );
}

#[test]
#[ignore = "long: run with --ignored"]
fn l2_two_members_everything_one_by_one() {
    let budget = Budget {
        kills: 2,
        losses: 1,
        shutdowns: 1,
        failures: 1,
        one_by_one: true,
        ..NOTHING
    };
    walk("2 members, everything", true, &[&["a", "b"]], budget);
}
