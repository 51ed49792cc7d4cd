//! The plans of `ghz-bench/plans`: one file for each call and each form of load, as ghz itself reads them.

use crate::workspace::Workspace;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use stampede_vocab::Service;
use std::{
    fs,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of its file without the ending, such as `claim-coupon.closed`.
    pub name: String,
    content: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// That of its file.
    AsPlanned,
    /// Calls a second; of an open plan.
    Rate(u32),
    /// Calls under way; of a closed plan.
    Callers(u32),
}

impl Load {
    /// The name of a plan that is played with this load.
    pub fn name(self, plan: &Plan) -> String {
        match self {
            Self::AsPlanned | Self::Rate(_) => plan.name.clone(),
            Self::Callers(callers) => format!("{}-{callers}", plan.name),
        }
    }
}

pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("ghz-bench/plans")
}

/// The plans that were named, by file (`claim-coupon.open`) or by call (`claim-coupon`, in both forms); all, if none
/// was. With a rate only the open ones are meant.
pub fn chosen(folder: &Path, named: &[String], rate: Option<u32>) -> anyhow::Result<Vec<Plan>> {
    let all = all(folder)?;
    let known = || all.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(stranger) = named.iter().find(|name| !all.iter().any(|plan| plan.is_meant_by(name))) {
        bail!("{stranger}: there is no such plan; the plans are {}", known());
    }
    let mut plans = all.clone();
    plans.retain(|plan| named.is_empty() || named.iter().any(|name| plan.is_meant_by(name)));
    plans.retain(|plan| rate.is_none() || plan.is_open());
    if plans.is_empty() {
        bail!("--rate is for the open form of a plan, and none of those named has one: {}", named.join(", "));
    }
    Ok(plans)
}

/// Both forms of each call that was named, the closed one first; of all calls, if none was.
pub fn pairs(folder: &Path, named: &[String]) -> anyhow::Result<Vec<(Plan, Plan)>> {
    let plans = all(folder)?;
    let closed_of = |open: &Plan| plans.iter().find(|plan| !plan.is_open() && plan.call() == open.call()).cloned();
    let open = chosen(folder, named, None)?.into_iter().filter(Plan::is_open);
    let pairs: Vec<(Plan, Plan)> = open.filter_map(|open| Some((closed_of(&open)?, open))).collect();
    anyhow::ensure!(
        !pairs.is_empty(),
        "--share is for the open form of a plan, and none of those named has one: {}",
        named.join(", ")
    );
    Ok(pairs)
}

fn all(folder: &Path) -> anyhow::Result<Vec<Plan>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    paths.iter().map(|path| Plan::read(path)).collect()
}

impl Plan {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let content = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let name = path.file_stem().expect("it was found by its ending").to_string_lossy().into_owned();
        let plan = Self { name, content };
        for key in ["call", "data"] {
            anyhow::ensure!(plan.content.get(key).is_some(), "{} has no {key}", path.display());
        }
        anyhow::ensure!(
            !plan.allowed().is_empty(),
            "{} does not list the expected outcomes in tags.allow",
            path.display()
        );
        Ok(plan)
    }

    fn is_meant_by(&self, name: &str) -> bool {
        self.name == name || self.call() == name
    }

    /// The call, such as `claim-coupon`.
    fn call(&self) -> &str {
        self.name.rsplit_once('.').map_or(self.name.as_str(), |(call, _)| call)
    }

    /// Whether the load is open: calls at a rate, independent of the answers.
    pub fn is_open(&self) -> bool {
        self.content["async"] == true
    }

    /// The outcomes that the plan expects; any other fails the run.
    pub fn allowed(&self) -> Vec<&str> {
        self.content["tags"]["allow"].as_str().map(|list| list.split(',').collect()).unwrap_or_default()
    }

    /// The method as metrics name it: `stampede.order.v1.OrderService/PlaceOrder`.
    pub fn method(&self) -> &str {
        self.content["call"].as_str().unwrap_or_default()
    }

    /// The service that answers, by the second part of the package.
    pub fn service(&self) -> anyhow::Result<Service> {
        let name = self.method().split('.').nth(1).unwrap_or_default();
        let service = Service::ALL.into_iter().find(|service| service.name() == name);
        service.with_context(|| format!("{} calls {}, which is of no service", self.name, self.method()))
    }

    /// The plan as it is played: against this address, for so long, with this load.
    pub fn played(&self, host: &str, seconds: u32, load: Load) -> Value {
        let mut content = self.content.clone();
        content["host"] = json!(host);
        content["duration"] = json!(format!("{seconds}s"));
        match load {
            Load::AsPlanned => {}
            Load::Rate(rate) => content["rps"] = json!(rate),
            Load::Callers(callers) => content["concurrency"] = json!(callers),
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(named: &[&str], rate: Option<u32>) -> anyhow::Result<Vec<String>> {
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        let plans = chosen(&folder(&Workspace::locate()), &named, rate)?;
        Ok(plans.into_iter().map(|plan| plan.name).collect())
    }

    #[test]
    fn a_plan_is_named_by_its_file_or_by_its_call() {
        assert_eq!(plans(&["get-order.open"], None).expect("it is there"), ["get-order.open"]);
        assert_eq!(plans(&["get-order"], None).expect("both are"), ["get-order.closed", "get-order.open"]);
        assert_eq!(plans(&["get-order"], Some(10)).expect("one is open"), ["get-order.open"]);
        assert_eq!(plans(&[], None).expect("all are there").len(), 12);
    }

    #[test]
    fn a_share_is_taken_of_the_closed_form_of_the_same_call() {
        let pairs_of = |named: &[String]| {
            let pairs = pairs(&folder(&Workspace::locate()), named)?;
            anyhow::Ok(pairs.into_iter().map(|(closed, open)| (closed.name, open.name)).collect::<Vec<_>>())
        };
        let place_order = ("place-order.closed".to_owned(), "place-order.open".to_owned());
        assert_eq!(pairs_of(&["place-order".to_owned()]).expect("both are there"), [place_order]);
        assert_eq!(pairs_of(&[]).expect("all are there").len(), 6);
        let error = pairs_of(&["place-order.closed".to_owned()]).expect_err("not open");
        assert!(error.to_string().contains("--share"), "{error}");
    }

    #[test]
    fn the_load_is_that_of_the_file_or_the_one_that_is_given() {
        let (closed, open) = pairs(&folder(&Workspace::locate()), &["place-order".to_owned()]).expect("both").remove(0);
        let planned = closed.played("127.0.0.1:1", 3, Load::AsPlanned);
        assert_eq!(
            (&planned["host"], &planned["duration"], &planned["concurrency"]),
            (&json!("127.0.0.1:1"), &json!("3s"), &json!(64))
        );
        assert_eq!(closed.played("127.0.0.1:1", 3, Load::Callers(128))["concurrency"], 128);
        assert_eq!(open.played("127.0.0.1:1", 3, Load::Rate(60))["rps"], 60);
    }

    #[test]
    fn an_unknown_plan_is_refused_by_name() {
        assert!(plans(&["get-orders"], None).expect_err("a slip").to_string().contains("get-orders: there is no such"));
        assert!(plans(&["get-order.closed"], Some(10)).expect_err("not open").to_string().contains("--rate"));
    }

    #[test]
    fn every_plan_sets_what_load_testers_forget() {
        for plan in chosen(&folder(&Workspace::locate()), &[], None).expect("readable") {
            let content = &plan.content;
            let name = &plan.name;
            assert_eq!(content["count-errors"], true, "{name} leaves errors out of its latencies");
            assert_eq!(content["duration-stop"], "wait", "{name} cuts calls off at its end");
            assert!(content["total"].as_u64().is_some_and(|total| total > 200), "{name} ends after 200 calls");
            assert_eq!(plan.is_open(), name.ends_with(".open"), "{name}");
            assert_eq!(content["name"], name.as_str());
            assert!(plan.service().is_ok(), "{name}");
        }
    }
}
