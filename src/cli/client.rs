//! A small client of the pods API, for commands that ask a scheduler.

use std::{cell::RefCell, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::{
    Failure, failure,
    line::{Access, Line},
};

const TIMEOUT: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 256 << 20;

/// Where the scheduler is.
#[derive(Debug, Clone)]
pub(super) struct Client {
    line: Line,
    /// What the scheduler complained of, said once.
    told: RefCell<Vec<String>>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub deployment: Option<String>,
    pub body: Value,
    /// What keeps the scheduler from its work.
    pub troubles: Vec<String>,
}

impl Client {
    pub fn new(url: &str, access: &Access) -> Result<Self, Failure> {
        Ok(Client {
            line: Line::new(url, access)?,
            told: RefCell::default(),
        })
    }

    /// Makes one request; an answer that says no is a failure with its words.
    pub fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, self.exchange(method, path, body)).await });
        let answer =
            answer.map_err(|_| Failure::failed(format!("{} does not answer", self.line.shown())))??;
        for trouble in &answer.troubles {
            if !self.told.borrow().contains(trouble) {
                failure::complain(format_args!("the scheduler says: {trouble}"));
                self.told.borrow_mut().push(trouble.clone());
            }
        }
        if (200..300).contains(&answer.status) {
            Ok(answer)
        } else {
            Err(refused(&answer))
        }
    }

    /// What is at a path, which has to look like that.
    pub fn get(&self, path: &str, is: fn(&Value) -> bool) -> Result<Value, Failure> {
        let body = self.call(Method::GET, path, None)?.body;
        match is(&body) {
            true => Ok(body),
            false => Err(self.no_scheduler(path)),
        }
    }

    /// Some other server has answered.
    pub fn no_scheduler(&self, path: &str) -> Failure {
        Failure::failed(format!(
            "what answers at {} is no scheduler: its answer to {path} is not what the pods API says",
            self.line.shown()
        ))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let socket = self.line.connect().await?;
        let garbage = |error: hyper::Error| {
            Failure::failed(format!(
                "what answers at {} is no scheduler: {}",
                self.line.shown(),
                Failure::from(error)
            ))
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(garbage)?;
        // Its failure shows in the answer.
        let connection = tokio::spawn(connection);
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.line.authority())
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = self.line.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body))?;
        let response = sender.send_request(request).await.map_err(garbage)?;
        let (parts, body) = response.into_parts();
        let bytes = Limited::new(body, LARGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| {
                Failure::failed(format!("the answer of {} broke off: {error}", self.line.shown()))
            })?
            .to_bytes();
        connection.abort();
        let troubles = parts.headers.get_all("podling-trouble").iter();
        let troubles = troubles
            .filter_map(|trouble| Some(trouble.to_str().ok()?.to_owned()))
            .collect();
        let deployment = parts
            .headers
            .get("marathon-deployment-id")
            .and_then(|id| id.to_str().ok());
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => match serde_json::from_slice(&bytes) {
                Ok(value) => value,
                // Proxies explain their refusals in HTML.
                Err(_) if !parts.status.is_success() => Value::Null,
                Err(error) => {
                    return Err(Failure::failed(format!(
                        "what answers at {} is no scheduler: its answer is no JSON: {error}",
                        self.line.shown()
                    )));
                }
            },
        };
        Ok(Answer {
            status: parts.status.as_u16(),
            deployment: deployment.map(str::to_owned),
            body,
            troubles,
        })
    }
}

/// The server's words, one violation a line. What it finds wrong with our input is wrong use.
fn refused(answer: &Answer) -> Failure {
    let running: Vec<&str> = answer.body["deployments"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|deployment| deployment["id"].as_str())
        .collect();
    if answer.status == 409 && !running.is_empty() {
        // Marathon's words are for whoever writes URLs.
        return Failure::failed(format!(
            "deployment {} of this pod is under way (HTTP 409): wait for its end, or replace it with --force",
            running.join(", ")
        ));
    }
    let message = answer.body["message"].as_str().unwrap_or("no reason given");
    let mut text = format!("{message} (HTTP {})", answer.status);
    for detail in answer.body["details"].as_array().into_iter().flatten() {
        let place = detail["path"].as_str().unwrap_or("/");
        let errors: Vec<&str> = detail["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        text.push_str(&format!("\n  {place}: {}", errors.join(", ")));
    }
    if let Some(details) = answer.body["details"].as_str() {
        text.push_str(&format!(": {details}"));
    }
    match answer.status {
        400 | 422 => Failure::usage(text),
        _ => Failure::failed(text),
    }
}

/// A definition or a status: whatever it is, it has the id of a pod.
pub(super) fn is_pod(value: &Value) -> bool {
    value["id"].as_str().is_some_and(|id| id.starts_with('/'))
}

pub(super) fn are_words(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|items| items.iter().all(Value::is_string))
}

pub(super) fn are_pods(value: &Value) -> bool {
    value.as_array().is_some_and(|pods| pods.iter().all(is_pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_with_what_holds_it_and_the_flag_that_breaks_it() {
        let answer = Answer {
            status: 409,
            deployment: None,
            troubles: Vec::new(),
            body: serde_json::json!({"message": "App is locked by one or more deployments. Override with the option \
                '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'.", "deployments": [{"id": "5ed4"}]}),
        };
        let words = refused(&answer).to_string();
        assert!(
            words.contains("deployment 5ed4") && words.contains("--force"),
            "{words}"
        );
        assert!(
            !words.contains("DEPLOYMENT_ID") && !words.contains("?force"),
            "{words}"
        );
    }
}
