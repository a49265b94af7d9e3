//! What waits, and what is under way.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Context, answer::Failure};
use crate::scheduler::core::{DeploymentKind, status::Waiting};

pub(super) async fn queue(
    State(context): State<Context>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let embed = query.is_some_and(|query| query.split('&').any(|part| part == "embed=lastUnusedOffers"));
    let waiting = context.scheduler.ask(|core, stamp| core.queue(stamp.now)).await?;
    let items: Vec<Value> = waiting.iter().map(|waiting| item(waiting, embed)).collect();
    Ok(Json(json!({"queue": items})).into_response())
}

fn item(waiting: &Waiting, embed: bool) -> Value {
    let turned_away: usize = waiting.reasons.values().sum();
    let mut processed = turned_away;
    // A funnel: each reason sees what the earlier ones let through.
    let summary: Vec<Value> = waiting
        .reasons
        .iter()
        .map(|(reason, declined)| {
            let step = json!({"reason": reason, "declined": declined, "processed": processed});
            processed = processed.saturating_sub(*declined);
            step
        })
        .collect();
    let mut item = json!({
        "pod": waiting.pod,
        "count": waiting.count,
        "role": waiting.pod.role,
        "since": waiting.since,
        "delay": {
            "timeLeftSeconds": waiting.delayed.map_or(0, |left| left.as_secs_f64().ceil() as u64),
            "overdue": waiting.delayed.is_none(),
        },
        "processedOffersSummary": {
            "processedOffersCount": waiting.processed,
            "unusedOffersCount": waiting.unused,
            "lastUnusedOfferAt": waiting.latest.last().map(|unused| unused.at),
            "rejectSummaryLastOffers": summary,
        },
    });
    if embed {
        let unused = waiting.latest.iter().map(|unused| {
            let reasons: Vec<_> = unused.refused.iter().map(|refused| refused.reason).collect();
            let details: Vec<_> = unused
                .refused
                .iter()
                .map(|refused| refused.detail.as_str())
                .collect();
            json!({
                "offer": {"id": unused.offer, "hostname": unused.host, "agentId": unused.agent,
                    "resources": [], "attributes": []},
                "reason": reasons,
                "message": details.join("; "),
                "timestamp": unused.at,
            })
        });
        item["lastUnusedOffers"] = unused.collect();
    }
    item
}

pub(super) async fn deployments(State(context): State<Context>) -> Result<Response, Failure> {
    let list = context
        .scheduler
        .ask(|core, _| {
            let one = |(pod, deployment): (&crate::pod::PodId, &crate::scheduler::core::Deployment)| {
                (pod.clone(), *deployment)
            };
            core.deployments().map(one).collect::<Vec<_>>()
        })
        .await?;
    let deployments: Vec<Value> = list
        .into_iter()
        .map(|(pod, deployment)| {
            let actions: &[&str] = match deployment.kind {
                DeploymentKind::Create => &["StartPod", "ScalePod"],
                DeploymentKind::Scale => &["ScalePod"],
                DeploymentKind::Restart => &["RestartPod"],
                DeploymentKind::Remove => &["StopPod"],
            };
            let step = |action: &&str| json!({"actions": [{"action": action, "pod": pod}]});
            let current = actions.last().copied().unwrap_or_default();
            json!({
                "id": deployment.id.to_string(),
                "version": deployment.since,
                "affectedApps": [],
                "affectedPods": [pod],
                "steps": actions.iter().map(step).collect::<Vec<_>>(),
                "currentActions": [{"action": current, "pod": pod, "readinessCheckResults": []}],
                "currentStep": actions.len(),
                "totalSteps": actions.len(),
            })
        })
        .collect();
    Ok(Json(deployments).into_response())
}
