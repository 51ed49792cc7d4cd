//! Creates the data of a plan by `stampede seed` and `stampede token`, through the gateway.

use crate::{bench::stage::Stage, shell};
use anyhow::Context;
use serde::Deserialize;
use std::{fs, path::Path, process::Command};

/// Characters of the part of an id that differs between runs.
const RUN_LENGTH: usize = 13;

/// The ids that `stampede seed` prints.
#[derive(Debug, Deserialize)]
pub struct Seed {
    event_id: String,
    item_ids: Vec<String>,
    campaign_id: Option<String>,
    orders: Vec<SeededOrder>,
}

#[derive(Debug, Deserialize)]
struct SeededOrder {
    order_id: String,
    user_id: String,
}

impl Seed {
    /// An event that is open, a campaign, and an order to read.
    pub fn open(stage: &Stage, sale: &Path) -> anyhow::Result<Self> {
        Self::make(stage, sale, &["--orders", "1"])
    }

    /// An event that opens in so many seconds.
    pub fn opening_in(stage: &Stage, sale: &Path, seconds: u32) -> anyhow::Result<Self> {
        Self::make(stage, sale, &["--before-opening", "--opens-in-ms", &(seconds * 1_000).to_string()])
    }

    fn make(stage: &Stage, sale: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let mut command = stage.operator();
        command.args(["-o", "json", "seed"]).arg(sale).args(more);
        let said = shell::quiet(&mut command).context("the event of the plan cannot be made")?;
        serde_json::from_str(&said).context("`stampede seed` printed no ids that can be read")
    }

    /// The ids under the names by which plans call them.
    pub fn ids(&self) -> Vec<(&'static str, String)> {
        let mut ids = vec![("EVENT_ID", self.event_id.clone())];
        ids.extend(self.item_ids.first().map(|id| ("ITEM_ID", id.clone())));
        ids.extend(self.item_ids.get(1).map(|id| ("SCARCE_ITEM_ID", id.clone())));
        ids.extend(self.campaign_id.clone().map(|id| ("CAMPAIGN_ID", id)));
        if let Some(SeededOrder { order_id, user_id }) = self.orders.first() {
            ids.extend([("ORDER_ID", order_id.clone()), ("USER_ID", user_id.clone())]);
        }
        ids
    }
}

/// Returns a part of ids that no other run has: each run's buyers are new.
pub fn run_id() -> anyhow::Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("the kernel gives no random id")?;
    Ok(uuid.chars().filter(char::is_ascii_hexdigit).take(RUN_LENGTH).collect())
}

/// The signed entries that plans call the services' own ports with, by their variables: that of any buyer, and that of
/// the order service.
pub fn identities(stage: &Stage) -> anyhow::Result<[(&'static str, String); 2]> {
    let made = |flags: &[&str]| {
        let mut command = stage.operator();
        command.args(["token", "--mesh"]).args(flags);
        let entry = shell::quiet(&mut command)
            .context("the services' ports need STAMPEDE_MESH_SECRET: `. .stampede/up/secrets.env` beside an `up`")?;
        anyhow::Ok(entry.trim().to_owned())
    };
    Ok([
        ("STAMPEDE_BUYER_IDENTITY", made(&["--role", "buyer", "--any-user"])?),
        ("STAMPEDE_ORDER_IDENTITY", made(&["--from", "order"])?),
    ])
}

/// Writes a token for each of so many new buyers to a file, under the header `user,token`.
pub fn write_tokens(stage: &Stage, count: u64, to: &Path) -> anyhow::Result<()> {
    let mut command: Command = stage.operator();
    command.args(["token", "--role", "buyer", "--csv", "--count", &count.to_string()]);
    let tokens = shell::quiet(&mut command).context("the buyers get no tokens")?;
    fs::write(to, tokens).with_context(|| format!("cannot write {}", to.display()))
}
