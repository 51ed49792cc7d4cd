//! Settings of one run: variables of single processes, and proxies on their connections.

use stampede_vocab::Process;

/// The variables and proxies of one run. The default changes nothing.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    settings: Vec<(Process, &'static str, String)>,
    detours: Vec<Detour>,
}

/// A port to connect to in place of another, both on the loopback.
#[derive(Debug, Clone)]
struct Detour {
    process: Process,
    from: String,
    to: String,
}

impl Tuning {
    /// Sets an environment variable of a process.
    #[must_use]
    pub fn set(mut self, process: impl Into<Process>, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((process.into(), name, value.to_string()));
        self
    }

    /// Makes a process connect to the port `to` in place of the port `from`.
    #[must_use]
    pub fn lead(mut self, process: Process, from: u16, to: u16) -> Self {
        self.detours.push(Detour { process, from: address(from), to: address(to) });
        self
    }

    /// Returns a setting of a process, with its ports replaced.
    pub fn led(&self, process: Process, text: &str) -> String {
        let detours = self.detours.iter().filter(|detour| detour.process == process);
        detours.fold(text.to_owned(), |text, detour| text.replace(&detour.from, &detour.to))
    }

    /// The environment variables of a process, by name.
    pub fn settings_of(&self, process: Process) -> impl Iterator<Item = (String, String)> {
        let own = self.settings.iter().filter(move |(of, ..)| *of == process);
        own.map(|(_, name, value)| ((*name).to_owned(), value.clone()))
    }
}

/// No port is a prefix of another one's digits: all have four, from 7000 on, or five.
fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Service;

    #[test]
    fn a_process_is_led_and_set_and_no_other_is() {
        let (order, payment) = (Process::from(Service::Order), Process::from(Service::Payment));
        let tuning = Tuning::default().lead(order, 7_306, 40_123).set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", 7);
        let url = "mysql://stampede:stampede@127.0.0.1:7306/stampede_order";
        assert_eq!(tuning.led(order, url), "mysql://stampede:stampede@127.0.0.1:40123/stampede_order");
        assert_eq!(tuning.led(payment, url), url);
        let set: Vec<_> = tuning.settings_of(order).collect();
        assert_eq!(set, [("STAMPEDE_PAY_WINDOW_MS".to_owned(), "7".to_owned())]);
        assert_eq!(tuning.settings_of(payment).count(), 0);
    }
}
