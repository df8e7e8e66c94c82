//! The clients, and how each is brought here: by its ordinary package manager, in a version that is named or the newest.
//!
//! It owns the list. What is brought here lies in the cache, never in the checkout.

use std::path::PathBuf;

use anyhow::Context;

use crate::{place, step, tools};

/// One client. `prepare` answers the line that starts its driver, in the folder of the drivers.
pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) prepare: fn() -> anyhow::Result<Vec<String>>,
}

pub(super) const CLIENTS: &[Client] = &[
    Client {
        name: "java-3.9",
        prepare: || java("3.9.1"),
    },
    Client {
        name: "java-4",
        prepare: || java("4.4.0"),
    },
    Client {
        name: "confluent",
        prepare: || python("confluent.py"),
    },
    Client {
        name: "kcat",
        prepare: || {
            tools::debian(&[("kcat", "kcat")])?;
            python("kcat.py")
        },
    },
    Client {
        name: "kafka-python",
        prepare: || python("kafka_python.py"),
    },
    Client {
        name: "aiokafka",
        prepare: || python("aio.py"),
    },
    Client {
        name: "franz-go",
        prepare: || go("franz"),
    },
    Client {
        name: "sarama",
        prepare: || go("sarama"),
    },
    Client {
        name: "kafkajs",
        prepare: kafkajs,
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
    tools::debian(&[("npm", "npm")])?;
    let folder = folder("js")?;
    let manifest = place::root().join("tests/compat/js/package.json");
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
    step::run("kafkajs", &mut step::program("npm", "", &install))?;
    let modules = format!("NODE_PATH={}", text(folder.join("node_modules")));
    Ok(["env", &modules, "node", "js/kafkajs.js"]
        .map(str::to_owned)
        .to_vec())
}

fn java(version: &str) -> anyhow::Result<Vec<String>> {
    tools::debian(&[("default-jdk-headless", "javac"), ("maven", "mvn")])?;
    let libraries = folder(&format!("kafka-clients-{version}"))?;
    let (wanted, to) = (
        format!("-Dkafka.version={version}"),
        format!("-DoutputDirectory={}", text(libraries.clone())),
    );
    let copy = ["-q", "-B", "dependency:copy-dependencies", &wanted, &to];
    let mut maven = step::program("mvn", "tests/compat/java", &copy);
    step::run(&format!("kafka-clients {version}"), &mut maven)?;
    let path = text(libraries.join("*"));
    let line = ["java", "-Xmx512m", "-cp", &path, "java/Compat.java"];
    Ok(line.map(str::to_owned).to_vec())
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
