//! Asking a service whether it does its work: over HTTP, and by a command.
//!
//! One call is one attempt. That it is refused a connection right after a start is normal; how often to try again is
//! the caller's to know.

use std::io::Read;
use std::time::Duration;

use crate::config::{CommandProbe, HttpProbe, Service};
use crate::error::chain;
use crate::fsys::child::{End, Run, short};
use crate::model::event::Evidence;

/// How much of an answer is read.
const BODY_LIMIT: u64 = 64 << 10;
/// How many lines of a command's output are kept.
const KEPT_LINES: usize = 20;

/// What is wrong after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was asked, and what came of it.
    pub evidence: Evidence,
    /// Whether it was the service that answered so.
    pub answered: bool,
}

/// Asks all that a service is asked, within a time and while it is wanted; gives the first thing that is wrong.
pub fn ask(service: &Service, limit: Duration, keep_on: &dyn Fn() -> bool) -> Option<Failure> {
    let http = service.http.as_ref().and_then(|probe| ask_http(probe, limit));
    http.or_else(|| service.command.as_ref().and_then(|probe| ask_command(probe, limit, keep_on)))
}

/// Whether a service is asked anything.
pub fn has_probes(service: &Service) -> bool {
    service.http.is_some() || service.command.is_some()
}

fn ask_http(probe: &HttpProbe, limit: Duration) -> Option<Failure> {
    let limit = limit.min(probe.timeout);
    let (detail, answered) = match answer(probe, limit) {
        Ok(None) => return None,
        Ok(Some(wrong)) => (wrong, true),
        Err(error) => (short(&chain(&error)), false),
    };
    let evidence = Evidence { check: format!("http {}", probe.address), detail, ..Evidence::default() };
    Some(Failure { evidence, answered })
}

/// What is wrong with the answer, if anything.
fn answer(probe: &HttpProbe, limit: Duration) -> Result<Option<String>, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        // Being sent elsewhere is an answer like any other, and no proxy stands between a device and itself.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent("tope-store")
        .build()
        .into();
    let mut response = agent.get(probe.address.to_string()).call()?;
    let status = response.status().as_u16();
    match probe.status {
        Some(wanted) if status != wanted => return Ok(Some(format!("status {status} instead of {wanted}"))),
        None if !response.status().is_success() => return Ok(Some(format!("status {status}"))),
        _ => {}
    }
    let Some(wanted) = &probe.body else { return Ok(None) };
    let mut body = Vec::new();
    response.body_mut().as_reader().take(BODY_LIMIT).read_to_end(&mut body).map_err(ureq::Error::Io)?;
    let found = body.windows(wanted.len().max(1)).any(|part| part == wanted.as_bytes()) || wanted.is_empty();
    let begin = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    Ok((!found).then(|| format!("status {status}, and {wanted:?} is not in its answer, which begins with {begin:?}")))
}

fn ask_command(probe: &CommandProbe, limit: Duration, keep_on: &dyn Fn() -> bool) -> Option<Failure> {
    let check = format!("command {}", probe.command.join(" "));
    let limit = limit.min(probe.timeout);
    let ran = Run { command: &probe.command, input: b"", environment: &[], limit, keep_on }.wait();
    match ran {
        Ok(ran) if ran.succeeded() => None,
        Ok(ran) => {
            let (detail, exit_code) = (ran.end.to_string(), ran.exit_code());
            let evidence = Evidence { check, detail, exit_code, log: ran.last_lines(KEPT_LINES) };
            Some(Failure { evidence, answered: matches!(ran.end, End::Exited(_) | End::Signalled(_)) })
        }
        Err(error) => {
            let evidence = Evidence { check, detail: chain(&error), ..Evidence::default() };
            Some(Failure { evidence, answered: false })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::config::{DEFAULT_PROBE_TIMEOUT, HttpAddress};

    /// Serves one answer and gives the address.
    fn serving(answer: &'static str) -> HttpAddress {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
            // Stays open: the answer's length must be enough.
            let _ = stream.read(&mut request);
        });
        HttpAddress { host: "127.0.0.1".into(), port, path: "/health".into() }
    }

    fn detail(answer: &'static str, change: impl FnOnce(&mut HttpProbe)) -> Option<String> {
        let mut probe = HttpProbe::of(serving(answer));
        change(&mut probe);
        let check = format!("http {}", probe.address);
        ask_http(&probe, Duration::from_secs(20)).map(|failure| {
            let detail = failure.evidence.detail;
            assert_eq!((failure.evidence.check, failure.answered), (check, !detail.contains("timeout")));
            detail
        })
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"state\": \"good\"";
    const BROKEN: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
    const MOVED: &str = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn success_is_any_status_of_200_unless_another_is_wanted() {
        assert_eq!(detail(GOOD, |_| {}), None);
        assert_eq!(detail(BROKEN, |_| {}), Some("status 500".into()));
        assert_eq!(detail(MOVED, |_| {}), Some("status 302".into()));
        assert_eq!(detail(MOVED, |probe| probe.status = Some(302)), None);
        assert_eq!(detail(GOOD, |probe| probe.status = Some(204)), Some("status 200 instead of 204".into()));
    }

    #[test]
    fn a_body_is_searched() {
        assert_eq!(detail(GOOD, |probe| probe.body = Some("\"good\"".into())), None);
        let expected = r#"status 200, and "bad" is not in its answer, which begins with "{\"state\": \"good\"""#;
        assert_eq!(detail(GOOD, |probe| probe.body = Some("bad".into())).as_deref(), Some(expected));
    }

    #[test]
    fn no_answer_and_no_listener_are_told_apart() {
        let silent = detail("", |probe| probe.timeout = Duration::from_millis(200)).unwrap();
        assert!(silent.contains("timeout"), "{silent}");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = HttpAddress { host: "127.0.0.1".into(), port, path: "/".into() };
        let refused = ask_http(&HttpProbe::of(address), Duration::from_secs(20)).unwrap();
        assert!(!refused.answered && refused.evidence.detail.contains("refused"), "{refused:?}");
    }

    #[test]
    fn a_command_answers_by_its_exit_code() {
        let ask = |script: &str, timeout| {
            let command = ["sh", "-c", script].map(str::to_owned).into();
            ask_command(&CommandProbe { command, timeout }, Duration::from_secs(20), &|| true)
        };
        assert_eq!(ask("exit 0", DEFAULT_PROBE_TIMEOUT), None);
        let expected = Evidence {
            check: "command sh -c echo no disk; exit 3".into(),
            detail: "it ended with exit code 3".into(),
            exit_code: Some(3),
            log: vec!["no disk".into()],
        };
        let expected = Failure { evidence: expected, answered: true };
        assert_eq!(ask("echo no disk; exit 3", DEFAULT_PROBE_TIMEOUT), Some(expected));
        let late = ask("sleep 600", Duration::from_millis(100)).unwrap();
        assert!(!late.answered);
        assert_eq!((late.evidence.detail.as_str(), late.evidence.exit_code), ("it took too long and was killed", None));
    }
}
