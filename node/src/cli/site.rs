//! `headwater site`: invite a site on the core, enrol it on the edge, list and revoke.

use std::io::Read as _;

use serde_json::{Value, json};

use super::common::{Common, Format, note};
use super::failure::Failure;
use super::http::segment;
use super::link::FlowArguments;
use super::table::{self, Table};
use super::{time, units};

const TOKEN_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// On the core: make a one-time token that lets a site in
    Invite {
        /// What to call the site
        name: String,
        /// How long the token can be used
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = units::duration_ms)]
        ttl: i64,
        /// Where the site is to dial, host:port [default: this node's advertised QUIC address]
        #[arg(long, value_name = "ADDRESS")]
        core: Option<String>,
        #[command(flatten)]
        flow: FlowArguments,
    },
    /// On the edge: take a token, get a certificate, dial the core
    Enrol {
        /// What `site invite` printed; `-` reads it from standard input
        token: String,
        /// What this node calls the link [default: the core's name for it]
        #[arg(long, value_name = "NAME")]
        link: Option<String>,
    },
    /// Show the sites and whether they are connected
    List,
    /// Shut a site out for good
    Revoke {
        /// The site's name
        name: String,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    let http = common.http()?;
    match command {
        Command::Invite {
            name,
            ttl,
            core,
            flow,
        } => {
            let mut body = json!({ "name": name, "ttl_ms": ttl, "core": core });
            if let Some(flow) = flow.spec() {
                body["flows"] = json!([flow]);
            }
            let made = http.post("/sites/invitations", &body).await?;
            if common.format() == Format::Text {
                let expires = time::format(made["expires_ms"].as_i64().unwrap_or(0));
                note(&format!(
                    "on the edge, once, before {expires}: headwater site enrol TOKEN"
                ));
            }
            common.answer(&made, |made| {
                format!("{}\n", made["token"].as_str().unwrap_or_default())
            })
        }
        Command::Enrol { token, link } => {
            let token = if token == "-" { read_token()? } else { token };
            let done = http
                .post("/sites/enrol", &json!({ "token": token.trim(), "link": link }))
                .await?;
            common.answer(&done, |done| {
                let word = |name: &str| done[name].as_str().unwrap_or_default().to_owned();
                format!(
                    "enrolled as {} at {}, link {}\n",
                    word("site"),
                    word("core"),
                    word("link")
                )
            })
        }
        Command::List => {
            let sites = http.get("/sites").await?;
            common.answer(&sites, listed)
        }
        Command::Revoke { name } => {
            http.post(&format!("/sites/{}/revoke", segment(&name)), &Value::Null)
                .await?;
            common.answer(&json!({ "revoked": name }), |_| format!("revoked {name}\n"))
        }
    }
}

fn read_token() -> Result<String, Failure> {
    let mut token = String::new();
    std::io::stdin()
        .take(TOKEN_BYTES_MAX)
        .read_to_string(&mut token)?;
    Ok(token)
}

fn listed(sites: &Value) -> String {
    let mut table = Table::new(&[
        "site",
        "state",
        "connected",
        "last seen",
        "address",
        ">rtt ms",
        "fingerprint",
    ]);
    for site in sites.as_array().into_iter().flatten() {
        let text = |name: &str| table::field(site, name);
        let fingerprint: String = text("fingerprint").chars().take(16).collect();
        table.row([
            text("name"),
            text("state"),
            if site["connected"].as_bool() == Some(true) {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
            table::moment(&site["last_seen_ms"]),
            text("address"),
            site["rtt_ms"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1}")),
            fingerprint,
        ]);
    }
    table.text()
}
