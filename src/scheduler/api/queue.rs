//! What waits, and what is under way.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Context, answer::Failure, path::BadTarget};
use crate::{
    mesos::v1,
    pod::PodId,
    scheduler::core::{
        Command, DeploymentKind,
        matching::{Amount, Offered, Reason},
        status::Waiting,
    },
};

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
    // A funnel: each reason sees what the earlier ones let through. Clients count on all of them being there.
    let summary: Vec<Value> = Reason::ALL
        .iter()
        .map(|reason| {
            let declined = waiting.reasons.get(reason).copied().unwrap_or(0);
            let step = json!({"reason": reason, "declined": declined, "processed": processed});
            processed = processed.saturating_sub(declined);
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
            json!({
                "offer": {"id": unused.offer, "hostname": unused.host, "agentId": unused.agent,
                    "resources": unused.resources.iter().map(resource).collect::<Vec<_>>(),
                    "attributes": unused.attributes.iter().map(attribute).collect::<Vec<_>>()},
                "reason": reasons,
                "message": unused.why(),
                "timestamp": unused.at,
            })
        });
        item["lastUnusedOffers"] = unused.collect();
    }
    item
}

fn resource(offered: &Offered) -> Value {
    let mut value = json!({"name": offered.name, "role": offered.role});
    match &offered.amount {
        Amount::Scalar(amount) => value["scalar"] = json!(amount),
        Amount::Ranges(ranges) => {
            let range = |(begin, end): &(u16, u16)| json!({"begin": begin, "end": end});
            value["ranges"] = ranges.iter().map(range).collect();
        }
    }
    value
}

fn attribute(attribute: &v1::Attribute) -> Value {
    let mut value = json!({"name": attribute.name});
    if let Some(text) = &attribute.text {
        value["text"] = json!(text.value);
    }
    if let Some(scalar) = &attribute.scalar {
        value["scalar"] = json!(scalar.value);
    }
    if let Some(ranges) = &attribute.ranges {
        let range = |range: &v1::value::Range| json!({"begin": range.begin, "end": range.end});
        value["ranges"] = ranges.range.iter().map(range).collect();
    }
    if let Some(set) = &attribute.set {
        value["set"] = json!(set.item);
    }
    value
}

/// Lets a pod that backs off launch at once. The GUI writes `/v2/queue//team/web/delay`.
pub(super) async fn reset_delay(
    State(context): State<Context>,
    Path(rest): Path<String>,
) -> Result<Response, Failure> {
    let path = rest.trim_end_matches('/').strip_suffix("/delay");
    let path = path.ok_or_else(|| Failure::not_found("there is nothing at this path"))?;
    let id: PodId = format!("/{path}").parse().map_err(BadTarget::from)?;
    context.scheduler.command(Command::ResetDelay(id)).await??;
    Ok(StatusCode::NO_CONTENT.into_response())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_shown_in_marathons_shape() {
        let offered = |name: &str, amount| Offered {
            name: name.to_owned(),
            role: "*".to_owned(),
            amount,
        };
        assert_eq!(
            resource(&offered("cpus", Amount::Scalar(0.5))),
            json!({"name": "cpus", "role": "*", "scalar": 0.5})
        );
        assert_eq!(
            resource(&offered("ports", Amount::Ranges(vec![(1, 2)]))),
            json!({"name": "ports", "role": "*", "ranges": [{"begin": 1, "end": 2}]})
        );
        let rack = v1::Attribute {
            name: "rack".to_owned(),
            text: Some(v1::value::Text {
                value: "a".to_owned(),
            }),
            ..Default::default()
        };
        assert_eq!(attribute(&rack), json!({"name": "rack", "text": "a"}));
    }
}
