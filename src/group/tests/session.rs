//! Section 1 of the behaviour list, and R3: what survives losing the agent.

use super::scene::*;
use crate::{
    group::{Event, MemberSignal::Stop, Settings},
    mesos::v1::{
        TaskState::{self, *},
        TaskStatus,
        executor::call::Subscribe,
        framework_info::capability::Type::TaskKillingState,
    },
};

fn tasks(carried: &Subscribe) -> Vec<&str> {
    carried
        .unacknowledged_tasks
        .iter()
        .map(|t| t.task_id.value.as_str())
        .collect()
}

fn updates(carried: &Subscribe) -> Vec<(&str, TaskState)> {
    let statuses = carried.unacknowledged_updates.iter().map(|u| &u.status);
    statuses.map(|s| (s.task_id.value.as_str(), s.state())).collect()
}

fn statuses(carried: &Subscribe) -> Vec<TaskStatus> {
    carried
        .unacknowledged_updates
        .iter()
        .map(|u| u.status.clone())
        .collect()
}

#[test]
fn s_05_without_checkpointing_a_lost_agent_ends_everything() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]).disconnected();
    assert_eq!(scene.signals(), [("a".into(), Stop), ("b".into(), Stop)]);
    assert!(!scene.machine.seeks_agent());
    scene.exited("a", signal(15));
    assert!(!scene.has_exited());
    assert!(scene.exited("b", signal(15)).has_exited());
}

#[test]
fn s_05_without_members_it_goes_at_once() {
    let mut scene = Scene::new();
    assert!(scene.disconnected().has_exited());
}

#[test]
fn s_06_with_checkpointing_members_go_on_until_the_recovery_time_is_over() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).disconnected();
    assert_eq!(scene.signals(), []);
    assert!(scene.machine.seeks_agent());
    scene.wait(899 * SECOND);
    assert_eq!((scene.state("a"), scene.signals().len()), ("running", 0));
    scene.wait(SECOND);
    assert_eq!(scene.signals(), [("a".into(), Stop)]);
    assert!(!scene.machine.seeks_agent());
    assert!(scene.exited("a", signal(15)).has_exited());
}

#[test]
fn s_07_a_reconnect_clears_the_recovery_time_and_the_next_loss_gets_a_full_one() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).disconnected().wait(800 * SECOND);
    scene.subscribe();
    assert_eq!(scene.machine.deadline(), None);
    scene.wait(200 * SECOND).disconnected();
    assert_eq!(scene.machine.deadline(), Some(scene.now + 900 * SECOND));
}

#[test]
fn s_07_news_of_the_same_loss_does_not_extend_the_recovery_time() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).disconnected();
    let deadline = scene.machine.deadline();
    scene.wait(SECOND).disconnected();
    assert_eq!(scene.machine.deadline(), deadline);
}

#[test]
fn s_08_every_unacknowledged_update_is_carried_as_it_was() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a"), task("b")]);
    let sent = scene.sent.clone();
    let carried = scene.disconnected().subscribe();
    assert_eq!(statuses(&carried), sent);
    assert_eq!(tasks(&carried), ["a", "b"]);
    assert_eq!(scene.sent, sent, "nothing that was carried is sent again");
}

#[test]
fn s_08_what_is_acknowledged_is_not_carried() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a"), task("b")]);
    let first = scene.sent.first().cloned().unwrap();
    scene.acknowledge(&first);
    let carried = scene.disconnected().subscribe();
    assert_eq!(tasks(&carried), ["b"]);
    assert_eq!(
        updates(&carried),
        [("b", TaskStarting), ("a", TaskRunning), ("b", TaskRunning)]
    );
}

#[test]
fn s_08_a_task_whose_end_is_acknowledged_is_forgotten() {
    let mut scene = Scene::checkpointed();
    scene
        .run([task("a"), task("b")])
        .exited("a", code(0))
        .acknowledge_all();
    let carried = scene.disconnected().subscribe();
    assert_eq!((tasks(&carried), updates(&carried)), (vec![], vec![]));
    assert_eq!(scene.state("a"), "gone");
}

#[test]
fn s_08_refused_tasks_are_carried_like_others() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).acknowledge_all();
    scene.launch([task("a"), task("b")]);
    let carried = scene.disconnected().subscribe();
    assert_eq!(tasks(&carried), ["b"]);
    assert_eq!(updates(&carried), [("b", TaskDropped)]);
}

#[test]
fn s_09_a_task_that_is_still_pulling_is_listed() {
    let mut scene = Scene::checkpointed();
    scene.launch([task("a")]);
    let carried = scene.disconnected().subscribe();
    assert_eq!(tasks(&carried), ["a"]);
    assert_eq!(updates(&carried), [("a", TaskStarting)]);
    // The launch was not disturbed.
    assert_eq!(scene.prepared("a").to_release(), ["a"]);
}

#[test]
fn s_12_an_end_while_away_is_kept_and_carried() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a"), task("b")]).acknowledge_all().disconnected();
    let sent = scene.sent.len();
    scene.exited("a", code(3)).exited("b", signal(15));
    assert_eq!(scene.sent.len(), sent, "nothing can be sent now");
    assert!(!scene.machine.is_done());
    let carried = scene.subscribe();
    assert_eq!(
        updates(&carried),
        [("a", TaskFailed), ("b", TaskKilling), ("b", TaskKilled)]
    );
    assert_eq!(scene.sent.len(), sent);
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn s_12_an_executor_that_ended_while_away_waits_for_the_agent_not_for_a_minute() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).disconnected().exited("a", code(0));
    assert!(!scene.wait(899 * SECOND).has_exited());
    scene.subscribe();
    assert!(!scene.wait(59 * SECOND).has_exited());
    assert!(scene.wait(SECOND).has_exited());
}

#[test]
fn s_12_but_not_for_ever() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).disconnected().exited("a", code(0));
    assert!(scene.wait(900 * SECOND).has_exited());
}

#[test]
fn r3_updates_made_between_subscribe_and_subscribed_follow_it_once() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a"), task("b")]).acknowledge_all().disconnected();
    scene.exited("a", code(0));
    let carried = scene.machine.subscribe();
    assert_eq!(updates(&carried), [("a", TaskFinished)]);
    scene.exited("b", code(0));
    scene.sent.clear();
    scene.step(Event::Subscribed(subscribed(&[], None)));
    let sent: Vec<_> = scene
        .sent
        .iter()
        .map(|s| (s.task_id.value.as_str(), s.state()))
        .collect();
    assert_eq!(sent, [("b", TaskFinished)]);
}

#[test]
fn r3_an_attempt_that_failed_counts_for_nothing() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a"), task("b")]).acknowledge_all().disconnected();
    scene.exited("a", code(0));
    let first = scene.machine.subscribe();
    scene.exited("b", code(0));
    let second = scene.machine.subscribe();
    assert_eq!(updates(&first), [("a", TaskFinished)]);
    assert_eq!(updates(&second), [("a", TaskFinished), ("b", TaskFinished)]);
    scene.sent.clear();
    scene.step(Event::Subscribed(subscribed(&[], None)));
    assert!(scene.sent.is_empty());
}

#[test]
fn r3_without_a_subscribe_call_everything_is_sent() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).disconnected();
    let before = std::mem::take(&mut scene.sent);
    scene.step(Event::Subscribed(subscribed(&[], None)));
    assert_eq!(scene.sent, before);
}

#[test]
fn s_11_while_away_only_the_newest_result_of_a_check_is_kept() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a"), task("b")]).acknowledge_all().disconnected();
    scene
        .health("a", false)
        .health("b", false)
        .health("a", false)
        .health("a", true);
    let carried = scene.subscribe();
    assert_eq!(updates(&carried), [("b", TaskRunning), ("a", TaskRunning)]);
    assert_eq!(carried.unacknowledged_updates[1].status.healthy, Some(true));
}

#[test]
fn s_11_what_the_agent_may_have_seen_is_never_replaced() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).acknowledge_all();
    scene.health("a", false).disconnected().health("a", true);
    let carried = scene.machine.subscribe();
    scene.health("a", false);
    assert_eq!(carried.unacknowledged_updates.len(), 2);
    assert_eq!(scene.machine.unacknowledged().count(), 3);
}

#[test]
fn s_11_an_unhealthy_member_is_killed_without_asking_the_agent() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).disconnected().unhealthy("a", "3 failures");
    assert_eq!(scene.signals(), [("a".into(), Stop)]);
}

#[test]
fn s_13_capabilities_come_anew_with_each_subscribed() {
    let mut scene = Scene::told(
        Settings {
            checkpoint: true,
            ..Settings::default()
        },
        subscribed(&[], None),
    );
    scene.run([task("a")]).disconnected();
    scene.step(Event::Subscribed(subscribed(&[TaskKillingState], None)));
    scene.kill("a");
    assert_eq!(scene.states("a").last(), Some(&TaskKilling));
}

#[test]
fn s_16_a_second_subscribed_replaces_the_first_and_repeats_nothing() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]);
    let sent = scene.sent.len();
    scene.subscribe();
    assert_eq!(scene.sent.len(), sent);
    assert_eq!(scene.state("a"), "running");
}

#[test]
fn s_02_a_first_subscribe_has_nothing_to_carry() {
    let mut scene = Scene::unsubscribed(Settings::default(), subscribed(&[], None));
    assert!(scene.machine.seeks_agent());
    let carried = scene.subscribe();
    assert_eq!(carried, Subscribe::default());
    assert!(!scene.machine.seeks_agent());
    assert_eq!(scene.machine.deadline(), None);
}

#[test]
fn s_04_a_failure_before_subscribed_is_not_a_loss() {
    let mut scene = Scene::unsubscribed(Settings::default(), subscribed(&[], None));
    assert!(!scene.disconnected().has_exited());
    assert!(scene.machine.seeks_agent());
}
