//! Progress bars on a terminal.

use super::picture::Picture;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use stampede_sale::Sale;

/// Longest title that fits before a bar.
const TITLE_WIDTH: usize = 20;

/// One bar for the crowd, one for the coupons, one an item, and three lines of text. Cleared when dropped.
pub struct Bars {
    all: MultiProgress,
    phase: ProgressBar,
    arrivals: ProgressBar,
    coupons: Option<ProgressBar>,
    items: Vec<ProgressBar>,
    states: ProgressBar,
    latencies: ProgressBar,
}

impl Bars {
    /// Returns the bars for this sale.
    pub fn new(sale: &Sale, buyers: usize) -> Self {
        let all = MultiProgress::new();
        let text = || all.add(ProgressBar::no_length().with_style(style("{msg}")));
        let bar = |title: &str, length: u64| {
            let title: String = title.chars().take(TITLE_WIDTH).collect();
            let shape = style("{prefix:20} {bar:40} {pos:>8} of {len} {msg}");
            all.add(ProgressBar::new(length).with_style(shape).with_prefix(title))
        };
        let items = sale.items.get_ref().iter();
        Self {
            phase: text(),
            arrivals: bar("arrived", buyers as u64),
            coupons: sale.campaign.as_ref().map(|campaign| bar("coupons", u64::from(campaign.quota.get()))),
            items: items.map(|item| bar(item.title.as_str(), u64::from(item.units.get()))).collect(),
            states: text(),
            latencies: text(),
            all,
        }
    }

    pub fn draw(&self, picture: &Picture) {
        let glance = &picture.glance;
        let heading = [picture.phase.clone(), picture.anomalies_text()].join("  ");
        self.phase.set_message(heading);
        self.arrivals.set_position(glance.arrivals as u64);
        if let Some(coupons) = &self.coupons {
            coupons.set_position(glance.coupons as u64);
        }
        for (bar, stock) in self.items.iter().zip(&picture.stocks) {
            bar.set_position(u64::from(stock.left_units));
            let gifts =
                if stock.left_gift_units > 0 { format!(", {} gifts", stock.left_gift_units) } else { String::new() };
            bar.set_message(format!("left{gifts}"));
        }
        self.states.set_message(format!("orders: {}", picture.states_text()));
        self.latencies.set_message(picture.latencies_text());
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // Fails only if the terminal is closed.
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are well formed").progress_chars("█▌ ")
}
