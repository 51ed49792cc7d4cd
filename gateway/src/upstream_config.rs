//! The URLs of the services: for each service of the registry a flag, such as `--order-urls`, and its variable.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};
use stampede_vocab::{Process, Service};
use std::collections::BTreeMap;

/// The URLs of each service, one a replica.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    urls: BTreeMap<Service, Vec<String>>,
}

impl UpstreamConfig {
    /// Returns the services, with the URLs of each.
    pub fn services(&self) -> impl Iterator<Item = (Service, &[String])> {
        self.urls.iter().map(|(service, urls)| (*service, urls.as_slice()))
    }
}

impl Args for UpstreamConfig {
    fn augment_args(command: Command) -> Command {
        command.args(Service::ALL.map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for UpstreamConfig {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self { urls: Service::ALL.map(|service| (service, urls(matches, service))).into() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn id(service: Service) -> String {
    format!("{service}_urls")
}

fn flag(service: Service) -> Arg {
    Arg::new(id(service))
        .long(format!("{service}-urls"))
        .env(service.urls_variable())
        .value_name("URLS")
        .value_parser(value_parser!(String))
        .value_delimiter(',')
        .action(ArgAction::Append)
        .default_value(format!("http://127.0.0.1:{}", Process::from(service).port()))
        .help(format!(
            "Replicas of the {service} service, comma separated: http://host:port, or dns:///host:port for all that \
             DNS has"
        ))
        .help_heading("Services")
}

fn urls(matches: &ArgMatches, service: Service) -> Vec<String> {
    matches.get_many::<String>(&id(service)).into_iter().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str], of: Service) -> Vec<String> {
        let command = UpstreamConfig::augment_args(Command::new("gateway"));
        let matches = command.try_get_matches_from([&["gateway"], args].concat()).unwrap();
        let config = UpstreamConfig::from_arg_matches(&matches).unwrap();
        config.services().find(|(service, _)| *service == of).unwrap().1.to_vec()
    }

    #[test]
    fn a_service_is_where_its_flag_says_or_where_it_listens_by_default() {
        let args = ["--order-urls", "http://a:1,http://b:2"];
        assert_eq!(parsed(&args, Service::Order), ["http://a:1", "http://b:2"]);
        assert_eq!(parsed(&args, Service::Event), ["http://127.0.0.1:7101"]);
    }
}
