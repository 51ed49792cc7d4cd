//! Load by wrk: one request again and again, over so many connections, each of which waits for its answer.

use crate::shell;
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: &'static str,
    pub path: &'static str,
    /// Empty for none.
    pub body: &'static str,
    /// The access token; empty for none.
    pub token: String,
}

/// The counts of wrk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Count {
    /// Answers.
    pub requests: u64,
    /// Answers of a status that is no success.
    pub refused: u64,
    /// Connections that failed, and answers that did not come.
    pub failed: u64,
    pub p50_ms: f64,
    /// Latency that one request in a hundred exceeds.
    pub p99_ms: f64,
}

/// The program, and the folder for its scripts.
pub struct Wrk {
    pub program: PathBuf,
    pub directory: PathBuf,
}

impl Wrk {
    /// Writes the script of a request for later runs.
    pub fn script(&self, name: &str, request: &Request) -> anyhow::Result<PathBuf> {
        let file = self.directory.join(format!("{name}.lua"));
        fs::write(&file, script(request)).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Sends the request of a script for so many seconds.
    pub fn run(&self, script: &Path, port: u16, connections: u32, seconds: u32) -> anyhow::Result<Count> {
        let mut command = Command::new(&self.program);
        command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"]).arg(script);
        command.arg(format!("http://127.0.0.1:{port}"));
        let said = shell::quiet(&mut command)?;
        read(&said).with_context(|| format!("wrk printed no figures:\n{said}"))
    }
}

/// The end of a script: it prints the figures in one line.
const DONE: &str = r#"
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  local p50, p99 = latency:percentile(50) / 1000, latency:percentile(99) / 1000
  io.write(string.format("\nFIGURES %d %d %d %.3f %.3f\n", summary.requests, errors.status, failed, p50, p99))
end
"#;

/// A script in Lua.
fn script(request: &Request) -> String {
    let Request { method, path, body, token } = request;
    let mut script = format!("wrk.method = \"{method}\"\nwrk.path = \"{path}\"\n");
    if !body.is_empty() {
        script += &format!("wrk.body = [[{body}]]\nwrk.headers[\"Content-Type\"] = \"application/json\"\n");
    }
    if !token.is_empty() {
        script += &format!("wrk.headers[\"Authorization\"] = \"Bearer {token}\"\n");
    }
    script + DONE
}

fn read(said: &str) -> Option<Count> {
    let line = said.lines().find_map(|line| line.strip_prefix("FIGURES "))?;
    let mut figures = line.split_whitespace();
    Some(Count {
        requests: figures.next()?.parse().ok()?,
        refused: figures.next()?.parse().ok()?,
        failed: figures.next()?.parse().ok()?,
        p50_ms: figures.next()?.parse().ok()?,
        p99_ms: figures.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_parsed_from_the_output() {
        let said = "Running 4s test\n  1 threads\n\nFIGURES 1000 3 0 1.250 4.500\n";
        let count = read(said).expect("they are there");
        assert_eq!(count, Count { requests: 1_000, refused: 3, failed: 0, p50_ms: 1.25, p99_ms: 4.5 });
        assert_eq!(read("unable to connect"), None);
    }

    #[test]
    fn a_script_has_the_whole_request() {
        let request = Request { method: "POST", path: "/v1/a:b", body: "{\"x\":1}", token: "abc".to_owned() };
        let text = script(&request);
        for line in
            ["wrk.method = \"POST\"", "wrk.path = \"/v1/a:b\"", "wrk.body = [[{\"x\":1}]]", "\"Bearer abc\"", "FIGURES"]
        {
            assert!(text.contains(line), "{text}");
        }
        let open = script(&Request { token: String::new(), ..request });
        assert!(!open.contains("Authorization"), "{open}");
    }
}
