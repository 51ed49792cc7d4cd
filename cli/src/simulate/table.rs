//! The report as tables for people.

use super::{
    latency::{Percentiles, Rate},
    report::{ItemLeft, Load, Report},
    stats::Anomaly,
};
use crate::output::{row, table};
use comfy_table::Table;
use std::fmt::{self, Display};

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} buyers, event {}", self.name, self.buyers, self.event_id)?;
        match self.opened_late_ms {
            Some(late_ms) => write!(f, "opened {late_ms:.1} ms after its time, ")?,
            None => write!(f, "never opened, ")?,
        }
        writeln!(f, "all over after {:.1} s\n", self.took_s)?;
        writeln!(f, "{}\n", self.outcome_table())?;
        writeln!(f, "{}\n", self.latency_table())?;
        self.write_load(f)?;
        writeln!(f, "{}\n", self.rate_table())?;
        writeln!(f, "{}\n", self.stock_table())?;
        let arrivals = &self.arrivals;
        writeln!(f, "{} orders have {} distinct ranks of arrival", arrivals.ranked, arrivals.distinct)?;
        self.write_unexpected(f)
    }
}

impl Report {
    fn outcome_table(&self) -> Table {
        let mut table = table(["step", "outcome"], ["count"]);
        for (step, outcomes) in &self.outcomes {
            for (outcome, count) in outcomes {
                table.add_row(row([step, outcome.as_str()], [*count]));
            }
        }
        for (state, count) in &self.orders {
            table.add_row(row(["order ended", state], [*count]));
        }
        for (reason, count) in &self.tried_again {
            table.add_row(row(["tried again", reason], [*count]));
        }
        table
    }

    fn latency_table(&self) -> Table {
        let mut table = table(["latency"], ["count", "p50 ms", "p99 ms", "max ms"]);
        for (what, Percentiles { count, p50_ms, p99_ms, max_ms }) in &self.latencies {
            let times = [p50_ms, p99_ms, max_ms].map(|time| format!("{time:.1}"));
            let [p50, p99, max] = times;
            table.add_row(row([what.name().replace('_', " ").as_str()], [count.to_string(), p50, p99, max]));
        }
        table
    }

    /// Writes the load. `order to fulfilled` is no figure of the mesh alone.
    fn write_load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { sent_late, in_flight_peak, in_flight_most, queued, queued_watches } = &self.load;
        let Percentiles { p50_ms, p99_ms, max_ms, .. } = sent_late;
        writeln!(f, "order to fulfilled has its buyers' thinking in it")?;
        writeln!(f, "requests were sent late by p50 {p50_ms:.1} p99 {p99_ms:.1} max {max_ms:.1} ms")?;
        writeln!(f, "at most {in_flight_peak} of {in_flight_most} were under way at a time, {queued} waited for that")?;
        writeln!(f, "{queued_watches} watches of orders waited until others had ended\n")
    }

    fn rate_table(&self) -> Table {
        let mut table = table(["rate"], ["count", "busy s", "per s", "best second"]);
        let rates = &self.rates;
        let named = [
            ("coupons issued", rates.coupons_issued),
            ("orders accepted", rates.orders_accepted),
            ("orders fulfilled", rates.orders_fulfilled),
        ];
        for (what, Rate { count, busy_s, per_s, best_per_s }) in named {
            let figures = [count.to_string(), format!("{busy_s:.1}"), format!("{per_s:.0}"), best_per_s.to_string()];
            table.add_row(row([what], figures));
        }
        table
    }

    fn stock_table(&self) -> Table {
        let mut table = table(["item"], ["units", "left", "committed", "held", "gifts", "gifts left"]);
        for item in &self.stock {
            let ItemLeft { title, total_units, left_units, committed_units, held_units, .. } = item;
            let units = [total_units, left_units, committed_units, held_units];
            let gifts = [&item.total_gift_units, &item.left_gift_units];
            table.add_row(row([title.as_str()], units.into_iter().chain(gifts)));
        }
        table
    }

    fn write_unexpected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_expected {
            return write!(f, "every outcome was one that the crowd expected");
        }
        let kinds: Vec<_> =
            self.unexpected.by_outcome.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        let (count, kinds) = (self.unexpected.count, kinds.join(", "));
        write!(f, "{count} outcomes that the crowd did not expect ({kinds}), the first:")?;
        self.unexpected.first.iter().try_for_each(|anomaly| write!(f, "\n  {anomaly}"))
    }
}

impl Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at_ms) = self.at_ms {
            write!(f, "{at_ms} ms ")?;
        }
        if let (Some(step), Some(buyer)) = (self.step, self.buyer) {
            write!(f, "buyer {buyer}, {} ", step.name())?;
        }
        write!(f, "{}: {}", self.outcome, self.detail)?;
        match &self.trace_id {
            Some(trace_id) => write!(f, " (trace {trace_id})"),
            None => Ok(()),
        }
    }
}
