//! The sale file: the event with its items, and the crowd. It refuses impossible values; it decides nothing about
//! single buyers. It is a crate of its own so that a contributor's command can check a file before it builds anything.
//!
//! ```
//! use stampede_sale::{Sale, SaleError};
//! use std::path::Path;
//!
//! let sale = Sale::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flash-sale.toml")))?;
//! assert_eq!(sale.crowd.buyers.get(), 5_000);
//!
//! let refused = Sale::parse("my.toml", "name = \"A sale\"\nprize = 1\n").unwrap_err();
//! assert!(refused.to_string().starts_with("my.toml: "));
//! # Ok::<(), SaleError>(())
//! ```

mod bounded;
mod check;
#[cfg(test)]
mod tests;

pub use bounded::{Millis, Percent, Price, Title, Within};
use check::Fault;
use serde::Deserialize;
use std::{fs, io, path::Path};
use toml::Spanned;

/// A sale as its file describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sale {
    /// Name of the event, shown to buyers.
    pub name: Title,
    /// Time from when everybody has a token to the opening.
    pub opens_in_ms: Spanned<OpensIn>,
    /// Time from the opening to the close.
    pub lasts_ms: Spanned<Millis<100, 86_400_000>>,
    /// STAMPEDE_PAY_WINDOW_MS of the mesh that the sale needs. The simulation only waits.
    pub pay_window_ms: Option<Spanned<PayWindow>>,
    /// Units that are left in the end fail the run, where the crowd wants at least twice as many as there are, and
    /// enough of it come back for what others return.
    #[serde(default)]
    pub must_sell_out: bool,
    pub items: Spanned<Vec<Item>>,
    /// Coupons to be claimed beforehand.
    pub campaign: Option<Campaign>,
    pub crowd: Crowd,
}

/// Time for which an order may wait for its payment: 0.1 s to a day.
pub type PayWindow = Millis<100, 86_400_000>;

/// Time from when everybody has a token to the opening: 1 s to 1 h.
pub type OpensIn = Millis<1_000, 3_600_000>;

/// Reads a time to the opening from a command line.
pub fn parse_opens_in(text: &str) -> Result<OpensIn, String> {
    let value = text.parse().ok().and_then(OpensIn::new);
    value.ok_or_else(|| "expected milliseconds from 1000 to 3600000".to_owned())
}

/// Reads a pay window from a command line.
pub fn parse_pay_window(text: &str) -> Result<PayWindow, String> {
    let value = text.parse().ok().and_then(PayWindow::new);
    value.ok_or_else(|| "expected milliseconds from 100 to 86400000".to_owned())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Shown to buyers.
    pub title: Title,
    /// Price of one unit.
    pub price: Spanned<Price>,
    pub units: Within<1, 10_000_000>,
    pub limit_per_buyer: Spanned<Within<1, 1_000>>,
    /// The gift of the first orders.
    pub gift: Option<Gift>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gift {
    /// Shown to buyers.
    pub title: Title,
    pub units: Spanned<Within<1, 10_000_000>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Campaign {
    /// Shown to buyers.
    pub name: Title,
    pub quota: Within<1, 10_000_000>,
    pub discount: Spanned<Price>,
    /// Time from when claims open to the opening of the event.
    pub opens_before_ms: Spanned<Millis<0, 3_600_000>>,
    /// The crowd's claims arrive within this time, from when claims open.
    pub spread_ms: Millis<1, 3_600_000>,
}

/// The crowd and its behaviour. Shares are in percent of all buyers, unless they say otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crowd {
    pub buyers: Within<1, 1_000_000>,
    /// Their orders arrive within this time, from the opening.
    pub spread_ms: Spanned<Millis<1, 3_600_000>>,
    /// Think time of a buyer before the next click; each takes half to one and a half of it.
    #[serde(default = "default_think")]
    pub think_ms: Millis<0, 600_000>,
    /// An order has one line to so many.
    #[serde(default = "default_lines")]
    pub max_lines_per_order: Spanned<Within<1, 20>>,
    /// A line has one unit to so many, within the limit of its item.
    #[serde(default = "default_units")]
    pub max_units_per_line: Within<1, 1_000>,
    /// Click everything twice.
    #[serde(default)]
    pub double_clickers_percent: Percent,
    /// Order before the opening too.
    #[serde(default)]
    pub early_birds_percent: Percent,
    /// Longest time before the opening.
    #[serde(default = "default_early")]
    pub early_by_ms: Spanned<Millis<1, 60_000>>,
    /// Lose the connection right after ordering, and order again under the same request id.
    #[serde(default)]
    pub cut_connections_percent: Percent,
    /// Try to get more than the limit once they have an order.
    #[serde(default)]
    pub over_limit_percent: Percent,
    /// Come back when it is sold out, until they get one unit or it closes. They pay what they get.
    #[serde(default)]
    pub come_back_percent: Percent,
    /// Pause between two visits of a buyer who comes back.
    #[serde(default = "default_come_back")]
    pub come_back_every_ms: Millis<10, 600_000>,
    /// Of the orders: never paid.
    #[serde(default = "nobody")]
    pub abandon_percent: Spanned<Percent>,
    /// Of the orders: cancelled.
    #[serde(default = "nobody")]
    pub cancel_percent: Spanned<Percent>,
    /// Of the payments: declined, and paid with another card then.
    #[serde(default = "nobody")]
    pub declined_cards_percent: Spanned<Percent>,
    /// Of the payments: the payment provider does not answer in time.
    #[serde(default = "nobody")]
    pub timed_out_cards_percent: Spanned<Percent>,
}

const fn bounded<const MIN: u32, const MAX: u32>(value: u32) -> Within<MIN, MAX> {
    Within::new(value).expect("a default is within its bounds")
}

fn nobody() -> Spanned<Percent> {
    Spanned::new(0..0, Percent::default())
}

fn default_think() -> Millis<0, 600_000> {
    bounded(500)
}

fn default_lines() -> Spanned<Within<1, 20>> {
    Spanned::new(0..0, bounded(1))
}

fn default_units() -> Within<1, 1_000> {
    bounded(1)
}

fn default_early() -> Spanned<Millis<1, 60_000>> {
    Spanned::new(0..0, bounded(500))
}

fn default_come_back() -> Millis<10, 600_000> {
    bounded(1_000)
}

/// The reason for which a sale file was refused.
#[derive(Debug, thiserror::Error)]
pub enum SaleError {
    /// It does not exist or cannot be read.
    #[error("{file} cannot be read: {source}")]
    Unreadable { file: String, source: io::Error },
    /// It is not TOML, has an unknown key, or a value out of bounds.
    #[error("{file}: {source}")]
    Malformed {
        file: String,
        /// The place and the cause.
        source: Box<toml::de::Error>,
    },
    /// Its values do not go together.
    #[error("{file}, line {line}: {field} {problem}")]
    Impossible {
        file: String,
        /// The line at fault, from 1.
        line: usize,
        field: String,
        problem: String,
    },
    /// A value that replaces one of the file does not fit the rest of it.
    #[error("{field} {problem}")]
    Unfitting { field: String, problem: String },
}

impl Sale {
    /// Fails if the file cannot be read, is malformed, or contradicts itself.
    pub fn load(path: &Path) -> Result<Self, SaleError> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| SaleError::Unreadable { file: file.clone(), source })?;
        Self::parse(&file, &text)
    }

    /// Reads the text of a sale file named `file`.
    pub fn parse(file: &str, text: &str) -> Result<Self, SaleError> {
        let sale: Self = toml::from_str(text)
            .map_err(|source| SaleError::Malformed { file: file.to_owned(), source: Box::new(source) })?;
        check::consistent(&sale).map_err(|fault| SaleError::Impossible {
            file: file.to_owned(),
            line: 1 + text[..fault.offset].matches('\n').count(),
            field: fault.field,
            problem: fault.problem,
        })?;
        Ok(sale)
    }

    /// Returns the same sale on a mesh that was started with this pay window, whatever the file says. Fails if buyers
    /// would think for longer.
    pub fn with_pay_window(self, window: PayWindow) -> Result<Self, SaleError> {
        Self { pay_window_ms: Some(Spanned::new(0..0, window)), ..self }.checked_again()
    }

    /// Returns the same sale, opening in this time, whatever the file says. Fails if its campaign would be staged too
    /// late.
    pub fn opening_in(self, opens_in: OpensIn) -> Result<Self, SaleError> {
        Self { opens_in_ms: Spanned::new(0..0, opens_in), ..self }.checked_again()
    }

    fn checked_again(self) -> Result<Self, SaleError> {
        check::consistent(&self).map_err(|Fault { field, problem, .. }| SaleError::Unfitting { field, problem })?;
        Ok(self)
    }
}
