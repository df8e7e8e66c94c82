//! `headwater module`: write, build and try modules here; push, list, show and remove them on a cluster.

mod build;
mod new;
mod toolchain;
mod trial;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};

use self::new::World;
use super::common::{Common, read_file};
use super::failure::Failure;
use super::http::{Http, segment};
use super::table::{self, Table, bytes};
use super::transform::newest;

const MODULE_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a project to start from
    New {
        /// The module's name, and that of the folder
        name: String,
        /// The language to write it in
        #[arg(long, value_parser = ["rust"], default_value = "rust")]
        lang: String,
        /// What kind of module: keep or drop records, map each to any number, or fold them in windows
        #[arg(long, value_enum, default_value = "filter")]
        world: World,
    },
    /// Build a module project into a component
    Build {
        /// The project's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Run a project's tests, then its component on sample records; fails if the module breaks down on one
    Test(Box<trial::Arguments>),
    /// Add a module to the cluster, or refuse it and say why
    Push {
        /// The component; a project's folder builds it first
        file: PathBuf,
        /// Call it so [default: as the module says]
        #[arg(long)]
        name: Option<String>,
        /// Under this version [default: as the module says]
        #[arg(long)]
        version: Option<String>,
    },
    /// Show what is there
    List,
    /// Show one module: parameters, permissions, who uses it
    Show {
        /// NAME or NAME@VERSION
        module: String,
    },
    /// Remove a module that no transform uses
    Remove {
        /// NAME@VERSION
        module: String,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    match command {
        Command::New { name, lang: _, world } => {
            let folder = new::write(&name, world)?;
            let shown = folder.display().to_string();
            common.answer(&json!({ "folder": shown }), |_| {
                format!(
                    "{shown}/ is a {} module\n  cargo test                    its tests, without a broker\n  headwater module build        \
                     the component\n  headwater module test         both, on sample.jsonl\n  headwater module push .       \
                     onto the cluster\n",
                    world.name()
                )
            })
        }
        Command::Build { folder } => {
            for built in build::project(&folder).await? {
                let size = built.bytes;
                let value = json!({ "file": built.file.display().to_string(), "size": size });
                common.answer(&value, |_| {
                    format!("{} ({})\n", built.file.display(), bytes(size))
                })?;
            }
            Ok(())
        }
        Command::Test(arguments) => trial::run(&common, *arguments).await,
        Command::Push { file, name, version } => {
            let pushed = push(&common.http()?, &file, name.as_deref(), version.as_deref()).await?;
            common.answer(&pushed, |module| {
                let part = |name: &str| module[name].as_str().unwrap_or("-");
                let size = bytes(module["size"].as_u64().unwrap_or(0));
                format!(
                    "{}@{}, a {} module of {size}\n",
                    part("name"),
                    part("version"),
                    part("world")
                )
            })
        }
        Command::List => {
            let modules = common.http()?.get("/modules").await?;
            common.answer(&modules, listed)
        }
        Command::Show { module } => {
            let http = common.http()?;
            let module = http.get(&path_of(&http, &module).await?).await?;
            common.answer(&module, described)
        }
        Command::Remove { module } => {
            let http = common.http()?;
            if !module.contains('@') {
                return Err(
                    Failure::usage(format!("which version of {module} to remove is not said")).hint(format!(
                        "write {module}@VERSION; `headwater module list` shows which there are"
                    )),
                );
            }
            http.delete(&path_of(&http, &module).await?).await?;
            common.answer(&json!({ "removed": module }), |_| format!("removed {module}\n"))
        }
    }
}

async fn path_of(http: &Http, module: &str) -> Result<String, Failure> {
    let (name, version) = match module.rsplit_once('@') {
        Some((name, version)) => (name, version.to_owned()),
        None => (module, newest(&http.get("/modules").await?, module)?),
    };
    Ok(format!("/modules/{}/{}", segment(name), segment(&version)))
}

async fn push(http: &Http, file: &Path, name: Option<&str>, version: Option<&str>) -> Result<Value, Failure> {
    let file = build::component_of(file).await?;
    upload(
        http,
        Bytes::from(read_file(&file, MODULE_BYTES_MAX)?),
        name,
        version,
    )
    .await
}

/// Sends a component to the cluster; answers with what the node found in it.
pub(super) async fn upload(
    http: &Http,
    component: Bytes,
    name: Option<&str>,
    version: Option<&str>,
) -> Result<Value, Failure> {
    let given = [("name", name), ("version", version)];
    let query = given
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", segment((*value)?))));
    let query = query.collect::<Vec<_>>().join("&");
    let path = if query.is_empty() {
        "/modules".to_owned()
    } else {
        format!("/modules?{query}")
    };
    http.upload(&path, "application/wasm", component).await
}

fn listed(modules: &Value) -> String {
    let mut table = Table::new(&["module", "version", "world", ">size", "used by", "description"]);
    for module in modules.as_array().into_iter().flatten() {
        let text = |name: &str| table::field(module, name);
        let description: String = text("description").chars().take(60).collect();
        table.row([
            text("name"),
            text("version"),
            text("world"),
            bytes(module["size"].as_u64().unwrap_or(0)),
            words(&module["used_by"]),
            description,
        ]);
    }
    table.text()
}

fn words(list: &Value) -> String {
    let words: Vec<_> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(", ")
    }
}

fn described(module: &Value) -> String {
    let text = |name: &str| table::field(module, name);
    let mut out = format!(
        "module       {}@{}\nworld        {}\nsize         {}\ndigest       {}\nadded        {}\npermissions  {}\n\
         used by      {}\n\n{}\n",
        text("name"),
        text("version"),
        text("world"),
        bytes(module["size"].as_u64().unwrap_or(0)),
        text("digest"),
        table::moment(&module["created_ms"]),
        words(&module["imports"]),
        words(&module["used_by"]),
        text("description"),
    );
    let params = module["params"].as_array().filter(|params| !params.is_empty());
    if let Some(params) = params {
        let mut table = Table::new(&["parameter", "kind", "default", "description"]);
        for param in params {
            let text = |name: &str| param[name].as_str().unwrap_or("").to_owned();
            let default = if param["required"] == true {
                "(required)".to_owned()
            } else {
                text("default")
            };
            table.row([text("name"), text("kind"), default, text("description")]);
        }
        out.push('\n');
        out.push_str(&table.text());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_shown_with_what_it_takes_and_may() {
        let module = json!({
            "name": "filter", "version": "1.0.0", "world": "filter", "size": 104_000, "digest": "ab", "created_ms": 0,
            "imports": ["log"], "used_by": [], "description": "Keeps records.",
            "params": [{ "name": "where", "kind": "text", "required": true, "default": null, "description": "when" }]
        });
        let shown = described(&module);
        for part in [
            "filter@1.0.0",
            "104.0 kB",
            "permissions  log",
            "used by      -",
            "(required)",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
