//! What every command that talks to a cluster takes and needs: addresses, trust, the form of the output.
//!
//! Owns the flags' names and defaults, and writing to standard output. It must never know a command.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use headwater_sdk::{Address, Client, Config, Identity, Transport, Trust};
use serde_json::Value;

use super::failure::Failure;
use super::http::Http;
use crate::sys::disk::{self, os::OsDisk};

const BOOTSTRAP_DEFAULT: &str = "127.0.0.1:9092";
const HTTP_PORT_DEFAULT: u16 = 8080;
/// Apart from what each command takes for itself.
const HEADING: &str = "Connection and output";
const PEM_BYTES_MAX: usize = 1 << 20;

/// Whom to talk to and how to answer.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Common {
    /// Where the cluster is: host:port (TCP), tls://host:port or quic://host:port; several with commas [default:
    /// 127.0.0.1:9092]
    #[arg(long, global = true, help_heading = HEADING, value_name = "ADDRESS", env = "HEADWATER_BOOTSTRAP")]
    bootstrap: Option<String>,
    /// Where a node's HTTP is [default: the bootstrap host, port 8080]
    #[arg(long, global = true, help_heading = HEADING, value_name = "ADDRESS", env = "HEADWATER_HTTP")]
    http: Option<String>,
    /// How to answer
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_enum,
        default_value = "text",
        env = "HEADWATER_OUTPUT"
    )]
    output: Format,
    /// Trust certificates of this authority (a PEM file; a node serves its own at /api/v1/cluster/ca.pem)
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE", env = "HEADWATER_CA")]
    ca: Option<PathBuf>,
    /// Trust the certificate with this SHA-256 fingerprint
    #[arg(long, global = true, help_heading = HEADING, value_name = "HEX", conflicts_with = "ca")]
    fingerprint: Option<String>,
    /// Show this certificate, with its chain, to nodes that ask for one (a PEM file)
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE", env = "HEADWATER_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key that belongs to --cert (a PEM file)
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE", env = "HEADWATER_KEY", requires = "cert")]
    key: Option<PathBuf>,
    /// Trust any certificate: whoever is in the middle can read along
    #[arg(long, global = true, help_heading = HEADING, conflicts_with_all = ["ca", "fingerprint"])]
    insecure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

impl Common {
    pub(super) fn format(&self) -> Format {
        self.output
    }

    /// Finds the cluster.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.config()?).await?)
    }

    /// The settings of a client, for commands that change some.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let bootstrap = self.bootstrap.as_deref().unwrap_or(BOOTSTRAP_DEFAULT);
        let mut config = Config::new(bootstrap).map_err(headwater_sdk::Error::from)?;
        config.client_id = "headwater-cli".to_owned();
        config.trust = self.trust(&config.bootstrap)?;
        config.identity = self.identity()?;
        Ok(config)
    }

    fn identity(&self) -> Result<Option<Identity>, Failure> {
        let (Some(certificate), Some(key)) = (&self.cert, &self.key) else {
            return Ok(None);
        };
        Ok(Some(Identity {
            certificate_pem: read_text(certificate, PEM_BYTES_MAX)?,
            key_pem: read_text(key, PEM_BYTES_MAX)?,
        }))
    }

    fn trust(&self, addresses: &[Address]) -> Result<Trust, Failure> {
        if self.insecure {
            return Ok(Trust::SkipVerification);
        }
        if let Some(path) = &self.ca {
            return Ok(Trust::Ca(read_text(path, PEM_BYTES_MAX)?));
        }
        if let Some(fingerprint) = &self.fingerprint {
            return Ok(Trust::Fingerprint(fingerprint.clone()));
        }
        let encrypted: Vec<&Address> = addresses
            .iter()
            .filter(|address| address.transport != Transport::Tcp)
            .collect();
        match encrypted.iter().find(|address| !is_this_machine(&address.host)) {
            None if encrypted.is_empty() => Ok(Trust::Unspecified),
            // Nobody stands between two processes of one machine.
            None => Ok(Trust::SkipVerification),
            Some(address) => Err(Failure::new(format!("whose certificate to accept at {address} is not said")).hint(
                format!(
                    "--ca FILE with what http://{}:{HTTP_PORT_DEFAULT}/api/v1/cluster/ca.pem serves, fetched over a way \
                     you trust; or --fingerprint HEX; or --insecure",
                    address.host
                ),
            )),
        }
    }

    /// The HTTP API of a node.
    pub(super) fn http(&self) -> Result<Http, Failure> {
        if let Some(address) = &self.http {
            return Http::new(address);
        }
        let bootstrap = self.bootstrap.as_deref().unwrap_or(BOOTSTRAP_DEFAULT);
        let config = Config::new(bootstrap).map_err(headwater_sdk::Error::from)?;
        let first = config
            .bootstrap
            .first()
            .map_or("127.0.0.1", |address| address.host.as_str());
        match first.contains(':') {
            true => Http::new(&format!("[{first}]:{HTTP_PORT_DEFAULT}")),
            false => Http::new(&format!("{first}:{HTTP_PORT_DEFAULT}")),
        }
    }

    /// Answers with JSON or with what `text` makes of it.
    pub(super) fn answer(&self, value: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        match self.output {
            Format::Json => {
                let json = serde_json::to_string_pretty(value).expect("a JSON value can be written");
                print(&format!("{json}\n"))
            }
            Format::Text => print(&text(value)),
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Writes a line to standard error, for what is not the answer.
pub(super) fn note(text: &str) {
    // Whoever closed it does not want to know.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks a person whether to do `what`; a script must say `--yes`.
pub(super) fn confirm(what: &str) -> Result<(), Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!("will not {what} without being asked to")).hint("add --yes"));
    }
    let mut stderr = io::stderr();
    write!(stderr, "{what}? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    note("nothing was changed");
    Err(Failure::new("not confirmed"))
}

/// A file's bytes.
pub(super) fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let read = disk::read(&OsDisk::new(Path::new("")), path, bytes_max);
    read.map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

/// A file's text.
pub(super) fn read_text(path: &Path, bytes_max: usize) -> Result<String, Failure> {
    String::from_utf8(read_file(path, bytes_max)?)
        .map_err(|_| Failure::new(format!("{} is not UTF-8 text", path.display())))
}

/// Reads `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(bootstrap: &str) -> Common {
        Common {
            bootstrap: Some(bootstrap.into()),
            http: None,
            output: Format::Text,
            ca: None,
            fingerprint: None,
            cert: None,
            key: None,
            insecure: false,
        }
    }

    #[test]
    fn encryption_needs_trust_unless_it_stays_on_this_machine() {
        let trust = |bootstrap| {
            common(bootstrap)
                .config()
                .map(|config| config.trust)
                .map_err(|why| why.to_string())
        };
        assert_eq!(trust("core:9092"), Ok(Trust::Unspecified));
        assert_eq!(trust("quic://127.0.0.1:9092"), Ok(Trust::SkipVerification));
        assert_eq!(trust("quic://[::1]:9092"), Ok(Trust::SkipVerification));
        assert!(
            trust("quic://core:9092")
                .is_err_and(|why| why.contains("http://core:8080/api/v1/cluster/ca.pem"))
        );
        let pinned = Common {
            fingerprint: Some("ab".into()),
            ..common("quic://core")
        };
        assert_eq!(
            pinned.config().ok().map(|config| config.trust),
            Some(Trust::Fingerprint("ab".into()))
        );
    }

    #[test]
    fn http_is_beside_the_bootstrap_unless_said_otherwise() {
        let address = |common: Common| common.http().map(|http| http.address().to_owned()).ok();
        assert_eq!(address(common("quic://core:9092")).as_deref(), Some("core:8080"));
        assert_eq!(address(common("[::1]:9092")).as_deref(), Some("[::1]:8080"));
        let told = Common {
            http: Some("http://other:1/".into()),
            ..common("core")
        };
        assert_eq!(address(told).as_deref(), Some("other:1"));
    }

    #[test]
    fn pairs_have_a_key() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
