//! The plans of `ghz-bench/plans`: one file for each call and each form of load, as ghz itself reads them.

use crate::workspace::Workspace;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use stampede_vocab::Service;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// One plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of its file without the ending, such as `claim-coupon.closed`.
    pub name: String,
    content: Value,
}

/// The folder of the plans.
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
        self.name == name || self.name.rsplit_once('.').is_some_and(|(call, _)| call == name)
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

    /// The plan as it is played: against this address, for so long, at this rate if one is given.
    pub fn played(&self, host: &str, seconds: u32, rate: Option<u32>) -> Value {
        let mut content = self.content.clone();
        content["host"] = json!(host);
        content["duration"] = json!(format!("{seconds}s"));
        if let Some(rate) = rate {
            content["rps"] = json!(rate);
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
