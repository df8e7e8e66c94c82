//! The clients, and the programs that run on one of them, and how each is brought here: by its ordinary package manager, in a
//! version that is named or the newest.
//!
//! It owns the list. What is brought here lies in the cache, never in the checkout.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::table::Kind;
use crate::{jars, place, step, tools};

/// One client, or a program. `prepare` answers the line that starts its driver, in the folder of the drivers.
pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) prepare: fn() -> anyhow::Result<Vec<String>>,
}

pub(super) const CLIENTS: &[Client] = &[
    Client {
        name: "java-3.9",
        kind: Kind::Client,
        prepare: || java("3.9.1", &[JAVA]),
    },
    Client {
        name: "java-4",
        kind: Kind::Client,
        prepare: || java(jars::NEWEST, &[JAVA, JAVA_SHARES]),
    },
    Client {
        name: "confluent",
        kind: Kind::Client,
        prepare: || python("confluent.py"),
    },
    Client {
        name: "kcat",
        kind: Kind::Client,
        prepare: || {
            tools::debian(&[("kcat", "kcat")])?;
            python("kcat.py")
        },
    },
    Client {
        name: "kafka-python",
        kind: Kind::Client,
        prepare: || python("kafka_python.py"),
    },
    Client {
        name: "aiokafka",
        kind: Kind::Client,
        prepare: || python("aio.py"),
    },
    Client {
        name: "franz-go",
        kind: Kind::Client,
        prepare: || go("franz"),
    },
    Client {
        name: "sarama",
        kind: Kind::Client,
        prepare: || go("sarama"),
    },
    Client {
        name: "kafkajs",
        kind: Kind::Client,
        prepare: kafkajs,
    },
    Client {
        name: "kafka-javascript",
        kind: Kind::Client,
        prepare: kafka_javascript,
    },
    Client {
        name: "kafka-tools",
        kind: Kind::Program,
        prepare: || program("tools.py", jars::NEWEST),
    },
    Client {
        name: "kafka-streams",
        kind: Kind::Program,
        prepare: || program("streams.py", jars::NEWEST),
    },
    Client {
        name: "kafka-connect",
        kind: Kind::Program,
        prepare: || program("connect.py", jars::NEWEST_CONNECT),
    },
    Client {
        name: "flink",
        kind: Kind::Program,
        prepare: || analytics("flink", "2.2.1"),
    },
    Client {
        name: "spark",
        kind: Kind::Program,
        prepare: || analytics("spark", "4.2.0"),
    },
];

/// The clients for Python, and the codecs that two of them take from other packages.
const PYTHON: &[&str] = &[
    "confluent-kafka",
    "kafka-python",
    "aiokafka",
    "cramjam",
    "lz4",
    "python-snappy",
    "zstandard",
];

/// The driver of Kafka's own client, and what is compiled beside it for those that have share groups.
const JAVA: &str = "tests/compat/java";
const JAVA_SHARES: &str = "tests/compat/java/shares";

fn python(script: &str) -> anyhow::Result<Vec<String>> {
    let interpreter = tools::python(PYTHON)?;
    Ok(vec![text(interpreter), script.to_owned()])
}

fn go(driver: &str) -> anyhow::Result<Vec<String>> {
    tools::debian(&[("golang-go", "go")])?;
    let built = folder("go")?.join(driver);
    let (to, from) = (text(built.clone()), format!("./{driver}"));
    let mut build = step::program("go", "tests/compat/go", &["build", "-o", &to, &from]);
    step::run(driver, &mut build)?;
    Ok(vec![text(built)])
}

fn kafkajs() -> anyhow::Result<Vec<String>> {
    node("kafkajs", &[])
}

/// Its binary lies where no package registry is, so librdkafka, which is in the package, is compiled: with what the machine
/// has, as whatever else it wants comes from there, too.
fn kafka_javascript() -> anyhow::Result<Vec<String>> {
    tools::debian(&[("g++", "g++"), ("make", "make")])?;
    let compiled = [
        ("CKJS_LINKING", "dynamic"),
        ("npm_config_build_from_source", "true"),
        // Where the headers of Node.js are, which would be fetched otherwise.
        ("npm_config_nodedir", "/usr"),
    ];
    node("confluent", &compiled)
}

fn node(client: &str, environment: &[(&str, &str)]) -> anyhow::Result<Vec<String>> {
    tools::debian(&[("npm", "npm")])?;
    let folder = folder("js")?.join(client);
    std::fs::create_dir_all(&folder)?;
    let sources = format!("tests/compat/js/{client}");
    let manifest = place::root().join(&sources).join("package.json");
    std::fs::copy(&manifest, folder.join("package.json")).context("cannot copy package.json")?;
    let place = text(folder.clone());
    let install = [
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--prefix",
        &place,
    ];
    let mut npm = step::program("npm", "", &install);
    step::run(client, npm.envs(environment.iter().copied()))?;
    let modules = format!("NODE_PATH={}", text(folder.join("node_modules")));
    let driver = format!("js/{client}/{client}.js");
    Ok(["env", &modules, "node", &driver].map(str::to_owned).to_vec())
}

fn java(version: &str, sources: &[&str]) -> anyhow::Result<Vec<String>> {
    let libraries = jars::fetch(JAVA, folder(&format!("kafka-clients-{version}"))?, version)?;
    let path = jars::compiled(&libraries, sources)?;
    let line = ["java", "-Xmx512m", "-cp", &path, "Compat"];
    Ok(line.map(str::to_owned).to_vec())
}

/// A program on Kafka's own client: a driver in Python starts it, and finds it on the class path.
fn program(script: &str, version: &str) -> anyhow::Result<Vec<String>> {
    let to = folder(&format!("kafka-{version}"))?;
    let libraries = jars::fetch("tests/compat/java/apps", to, version)?;
    with_class_path(&libraries, "tests/compat/java/streams", script)
}

/// A program with a connector for Kafka: it brings the client that the connector wants.
fn analytics(name: &str, version: &str) -> anyhow::Result<Vec<String>> {
    let sources = format!("tests/compat/java/{name}");
    let to = folder(&format!("{name}-{version}"))?;
    let libraries = jars::fetch_of(&sources, to, name, version)?;
    with_class_path(&libraries, &sources, &format!("{name}.py"))
}

/// A driver in Python that finds these jars, and what is compiled beside them, on the class path.
fn with_class_path(libraries: &Path, sources: &str, script: &str) -> anyhow::Result<Vec<String>> {
    let path = jars::compiled(libraries, &[sources])?;
    let mut line = vec!["env".to_owned(), format!("CLASSPATH={path}")];
    line.extend(python(script)?);
    Ok(line)
}

/// A folder of the cache.
fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let folder = place::cache().join("compat").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}
