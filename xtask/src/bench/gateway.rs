//! `cargo xtask bench gateway`: the cost of a request in the gateway, beside that in a bare HTTP handler and in a bare
//! hop from HTTP to gRPC; and that of a gRPC handler within the layers of a service, beside a bare one. All in the same
//! run and in turn. Processor time is the kernel's; only ratios of one run compare with those of another machine.

use crate::{
    bench::{
        RUN,
        costs::Spent,
        laboratory::{BACKEND, GATEWAY, HANDLER, HOP, Laboratory, Programs, SERVICE, TO_SERVICE},
        stage,
        wrk::{Count, Request, Wrk},
    },
    cli::{GatewayArgs, Profile},
    down,
    fleet::Fleet,
    setup,
    ui::{Step, say},
    workspace::{Workspace, make_directory, remove_directory},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// Connections at a time.
const CONNECTIONS: [u32; 2] = [32, 64];
/// Warm-up before each measurement.
const WARM_UP_S: u32 = 1;

/// Ceilings of the gateway's cost and latency, as shares of the bare hop's.
const MOST_COST: f64 = 1.7;
const MOST_P99: f64 = 2.0;
/// Ceiling of the cost of a handler within the layers of a service, as a share of a bare one's.
const MOST_LAYERED_COST: f64 = 1.3;

/// The claims through the gateway: to a bare handler, and to one within the layers of a service.
const BARE_CLAIM: &str = "claim";
const SERVICE_CLAIM: &str = "to a service";

const CLAIM: &str = "/v1/campaigns/cmp_2x4y6z8e0n9gqvk3m5r7t1c2d0:claim";
const CAMPAIGN: &str = "/v1/campaigns/cmp_2x4y6z8e0n9gqvk3m5r7t1c2d0";

/// One kind of request to one process.
struct Case {
    name: &'static str,
    /// The process that takes the request.
    front: &'static str,
    /// The process that handles the call.
    backend: &'static str,
    port: u16,
    request: Request,
    /// Whether it is answered with a refusal.
    is_refused: bool,
}

/// The figures of a case: the median of all rounds.
#[derive(Debug, Serialize)]
struct Figures {
    case: &'static str,
    connections: u32,
    /// Microseconds of processor that the process in front spent on a request.
    front_us: f64,
    /// The same of the gRPC handler.
    backend_us: f64,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// `front_us` as a share of the bare hop's.
    cost_to_hop: f64,
    /// `p99_ms` as a share of the bare hop's.
    p99_to_hop: f64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    front_us: f64,
    backend_us: f64,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures. Returns whether every request was answered as its case expects.
pub fn run(workspace: &Workspace, args: &GatewayArgs) -> anyhow::Result<bool> {
    let run = workspace.run(RUN);
    down::mend_before("bench", &run)?;
    setup::redis()?;
    let wrk = setup::wrk()?;
    let programs = Programs::build(workspace, args.profile.or(Profile::Release))?;
    remove_directory(&run)?;
    let mut fleet = Fleet::open(&run)?;
    let laboratory = Laboratory::start(&mut fleet, workspace, &programs)?;
    let scripts = run.join("scripts");
    make_directory(&scripts)?;
    let mut bench = Bench { wrk: Wrk { program: wrk, directory: scripts }, fleet, seconds: args.seconds, sound: true };
    let figures = bench.measure(&cases(&laboratory), args.rounds)?;
    bench.fleet.stop();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print(&figures);
    }
    Ok(bench.sound)
}

fn cases(laboratory: &Laboratory) -> [Case; 7] {
    let claim = |body| Request { method: "POST", path: CLAIM, body, token: laboratory.token.clone() };
    // A read with a token makes a call; those without one share one.
    let read = |token| Request { method: "GET", path: CAMPAIGN, body: "", token };
    let granted = r#"{"request_id":"01985f2e-7c11-7d52-9c1e-2f6a0d0f3b77"}"#;
    let case = |name, front, port, request| Case { name, front, backend: BACKEND, port, request, is_refused: false };
    [
        case("bare handler", HANDLER, laboratory.handler, claim(granted)),
        case("bare hop", HOP, laboratory.hop, claim(granted)),
        case(BARE_CLAIM, GATEWAY, laboratory.gateway, claim(granted)),
        Case { backend: SERVICE, ..case(SERVICE_CLAIM, TO_SERVICE, laboratory.to_service, claim(granted)) },
        Case { is_refused: true, ..case("refused", GATEWAY, laboratory.gateway, claim(r#"{"request_id":"refused"}"#)) },
        case("read", GATEWAY, laboratory.gateway, read(laboratory.token.clone())),
        case("read, shared", GATEWAY, laboratory.gateway, read(String::new())),
    ]
}

struct Bench {
    wrk: Wrk,
    fleet: Fleet,
    seconds: u32,
    /// Whether all answers so far are as expected.
    sound: bool,
}

impl Bench {
    fn measure(&mut self, cases: &[Case], rounds: u32) -> anyhow::Result<Vec<Figures>> {
        let mut samples: BTreeMap<(u32, usize), Vec<Sample>> = BTreeMap::new();
        let scripts: Vec<PathBuf> = cases
            .iter()
            .map(|case| self.wrk.script(&case.name.replace(' ', "-"), &case.request))
            .collect::<Result<_, _>>()?;
        for round in 1..=rounds {
            let step = Step::begin(&format!("round {round}"), "measuring");
            for connections in CONNECTIONS {
                for (number, (case, script)) in cases.iter().zip(&scripts).enumerate() {
                    let sample = self.sample(case, script, connections)?;
                    samples.entry((connections, number)).or_default().push(sample);
                }
            }
            step.done(&format!("{} cases", cases.len() * CONNECTIONS.len()));
        }
        let medians: BTreeMap<(u32, usize), Sample> =
            samples.iter().map(|(key, samples)| (*key, Sample::median(samples))).collect();
        let hop = cases.iter().position(|case| case.front == HOP).expect("the hop is one of them");
        let figures = medians.iter().map(|((connections, number), sample)| {
            sample.beside(&medians[&(*connections, hop)], cases[*number].name, *connections)
        });
        Ok(figures.collect())
    }

    fn sample(&mut self, case: &Case, script: &Path, connections: u32) -> anyhow::Result<Sample> {
        self.wrk.run(script, case.port, connections, WARM_UP_S)?;
        let before = stage::spent(&self.fleet);
        let count = self.wrk.run(script, case.port, connections, self.seconds)?;
        let spent = stage::spent(&self.fleet);
        self.fleet.check()?;
        self.judge(case, count);
        Ok(Sample::of(case, count, self.seconds, &spent, &before))
    }

    fn judge(&mut self, case: &Case, count: Count) {
        let expected = if case.is_refused { count.requests } else { 0 };
        if count.requests == 0 || count.failed > 0 || count.refused != expected {
            say(&format!("  {}: {count:?} is not as expected", case.name));
            self.sound = false;
        }
    }
}

impl Sample {
    fn of(case: &Case, count: Count, seconds: u32, spent: &Spent, before: &Spent) -> Self {
        let spent = spent.since(before);
        #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
        let requests = count.requests.max(1) as f64;
        let us =
            |name: &str| spent.get(name).copied().map_or(0.0, |time: Duration| time.as_secs_f64() * 1e6 / requests);
        Self {
            front_us: us(case.front),
            backend_us: us(case.backend),
            per_s: requests / f64::from(seconds),
            p50_ms: count.p50_ms,
            p99_ms: count.p99_ms,
        }
    }

    /// The median of each figure by itself.
    fn median(samples: &[Self]) -> Self {
        let median = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            front_us: median(|sample| sample.front_us),
            backend_us: median(|sample| sample.backend_us),
            per_s: median(|sample| sample.per_s),
            p50_ms: median(|sample| sample.p50_ms),
            p99_ms: median(|sample| sample.p99_ms),
        }
    }

    fn beside(&self, hop: &Self, case: &'static str, connections: u32) -> Figures {
        let Self { front_us, backend_us, per_s, p50_ms, p99_ms } = *self;
        let (cost_to_hop, p99_to_hop) = (front_us / hop.front_us, p99_ms / hop.p99_ms);
        Figures { case, connections, front_us, backend_us, per_s, p50_ms, p99_ms, cost_to_hop, p99_to_hop }
    }
}

fn print(figures: &[Figures]) {
    println!(
        "\n  {:<14} {:>5} {:>10} {:>11} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "case", "conns", "us/request", "backend us", "per s", "p50 ms", "p99 ms", "to hop", "p99"
    );
    for one in figures {
        println!(
            "  {:<14} {:>5} {:>10.1} {:>11.1} {:>9.0} {:>8.2} {:>8.2} {:>7.2}x {:>7.2}x",
            one.case,
            one.connections,
            one.front_us,
            one.backend_us,
            one.per_s,
            one.p50_ms,
            one.p99_ms,
            one.cost_to_hop,
            one.p99_to_hop
        );
    }
    for claim in figures.iter().filter(|one| one.case == BARE_CLAIM) {
        let met = claim.cost_to_hop <= MOST_COST && claim.p99_to_hop <= MOST_P99;
        println!(
            "\n  {} connections: a claim costs at most {MOST_COST} bare hops, and {MOST_P99} times its p99: {}",
            claim.connections,
            if met { "met" } else { "not met" }
        );
    }
    print_layers(figures);
}

fn print_layers(figures: &[Figures]) {
    for bare in figures.iter().filter(|one| one.case == BARE_CLAIM) {
        let is_beside = |one: &&Figures| one.case == SERVICE_CLAIM && one.connections == bare.connections;
        let Some(layered) = figures.iter().find(is_beside) else { continue };
        let cost = layered.backend_us / bare.backend_us;
        println!(
            "\n  {} connections: within the layers of a service a handler costs {cost:.2} bare ones, \
             {MOST_LAYERED_COST} at most: {}",
            bare.connections,
            if cost <= MOST_LAYERED_COST { "met" } else { "not met" }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(front_us: f64, p99_ms: f64) -> Sample {
        Sample { front_us, backend_us: 20.0, per_s: 1_000.0, p50_ms: 1.0, p99_ms }
    }

    #[test]
    fn each_figure_is_the_median_of_its_own() {
        let median = Sample::median(&[sample(10.0, 9.0), sample(30.0, 1.0), sample(20.0, 5.0)]);
        assert_eq!((median.front_us, median.p99_ms), (20.0, 5.0));
    }

    #[test]
    fn a_case_is_shown_beside_the_hop() {
        let figures = sample(60.0, 3.0).beside(&sample(30.0, 2.0), "claim", 32);
        assert_eq!((figures.cost_to_hop, figures.p99_to_hop), (2.0, 1.5));
    }
}
