//! The rules for modules, transforms, sites and links: names, references, what is in use. Pure.

use super::decide::{Decision, Tell};
use super::error::ProposeError;
use super::topics::check_name;
use crate::metadata::topic::NAME_BYTES_MAX;
use crate::metadata::{Flow, Image, Link, Module, Record, Site, Topic, Transform, Upstream};
use std::sync::Arc;

/// Whether an object may be called so: it becomes part of file names, metric labels and addresses.
fn check_object_name(kind: &'static str, name: &str) -> Result<(), ProposeError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && name.len() <= 100 && name.bytes().all(legal) {
        return Ok(());
    }
    Err(ProposeError::Refused(format!(
        "{kind} name {:?} is not valid: up to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit",
        name.chars().take(120).collect::<String>()
    )))
}

fn unknown(kind: &'static str, name: &str) -> ProposeError {
    ProposeError::Unknown {
        kind: kind.into(),
        name: name.to_owned(),
    }
}

pub(super) fn put_module(module: Module, image: &Image) -> Result<Decision, ProposeError> {
    check_object_name("module", &module.name)?;
    check_object_name("module version", &module.version)?;
    let tell = Tell::Module {
        name: module.name.clone(),
        version: module.version.clone(),
    };
    match image.module(&module.name, &module.version) {
        Some(known) if known.digest == module.digest => Ok(Decision {
            records: Vec::new(),
            tell,
        }),
        Some(_) => Err(ProposeError::Exists {
            kind: "module".into(),
            name: format!("{} {}", module.name, module.version),
        }),
        None => Ok(Decision {
            records: vec![Record::Module(module)],
            tell,
        }),
    }
}

pub(super) fn remove_module(name: String, version: String, image: &Image) -> Result<Decision, ProposeError> {
    let full_name = || format!("{name} {version}");
    if image.module(&name, &version).is_none() {
        return Err(unknown("module", &full_name()));
    }
    let user = image
        .transforms
        .values()
        .find(|it| it.module.name == name && it.module.version == version);
    if let Some(user) = user {
        return Err(ProposeError::InUse {
            kind: "module".into(),
            name: full_name(),
            by: format!("transform {:?}", user.name),
        });
    }
    Ok(Decision::done(vec![Record::RemoveModule { name, version }]))
}

pub(super) fn put_transform(mut transform: Transform, image: &Image) -> Result<Decision, ProposeError> {
    check_object_name("transform", &transform.name)?;
    let module = &transform.module;
    if image.module(&module.name, &module.version).is_none() {
        return Err(unknown("module", &format!("{} {}", module.name, module.version)));
    }
    let topics = [&transform.source, &transform.dead_letter];
    for topic in topics
        .into_iter()
        .chain(&transform.sinks)
        .chain(&transform.late_sink)
        .chain(transform.lookups.values())
        .chain(transform.join.as_ref().map(|join| &join.topic))
    {
        check_name(topic)?;
    }
    if transform.sinks.is_empty() {
        return Err(ProposeError::Refused(
            "a transform needs at least one sink".to_owned(),
        ));
    }
    let right = transform.join.as_ref().map(|join| &join.topic);
    for name in [&transform.source].into_iter().chain(right) {
        let mut written = transform.sinks.iter().chain(&transform.late_sink);
        if written.any(|sink| sink == name) || transform.dead_letter == *name {
            return Err(ProposeError::Refused(format!(
                "topic {name:?} is the source and would be fed with its own outputs"
            )));
        }
    }
    let known = image.transforms.get(&transform.name);
    transform.revision = known.map_or(1, |known| known.revision + 1);
    if let Some(known) = known {
        transform.created_ms = known.created_ms;
    }
    Ok(Decision::done(vec![Record::Transform(transform)]))
}

pub(super) fn pause_transform(name: &str, paused: bool, image: &Image) -> Result<Decision, ProposeError> {
    let known = image
        .transforms
        .get(name)
        .ok_or_else(|| unknown("transform", name))?;
    if known.paused == paused {
        return Ok(Decision::done(Vec::new()));
    }
    let changed = Transform {
        paused,
        ..Transform::clone(known)
    };
    Ok(Decision::done(vec![Record::Transform(changed)]))
}

pub(super) fn remove_transform(name: String, image: &Image) -> Result<Decision, ProposeError> {
    if !image.transforms.contains_key(&name) {
        return Err(unknown("transform", &name));
    }
    Ok(Decision::done(vec![Record::RemoveTransform { name }]))
}

pub(super) fn put_site(site: Site) -> Result<Decision, ProposeError> {
    check_object_name("site", &site.name)?;
    Ok(Decision::done(vec![Record::Site(site)]))
}

/// A flow that could never copy anything would be shown as one that waits.
fn check_flow(flow: &Flow) -> Result<(), ProposeError> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if flow.topics.is_empty() {
        return Err(ProposeError::Refused("a flow names no topic".to_owned()));
    }
    let wrong = |pattern: &&String| {
        pattern.is_empty()
            || pattern.len() > NAME_BYTES_MAX
            || !pattern.bytes().all(|byte| letter(byte) || byte == b'*')
    };
    if let Some(pattern) = flow.topics.iter().find(wrong) {
        return Err(ProposeError::Refused(format!(
            "topic pattern {:?} can match no topic",
            pattern.chars().take(120).collect::<String>()
        )));
    }
    if flow.prefix.len() >= NAME_BYTES_MAX || !flow.prefix.bytes().all(letter) {
        return Err(ProposeError::Refused(format!(
            "prefix {:?} makes no topic name: letters, digits, '.', '_' and '-' may be used",
            flow.prefix.chars().take(120).collect::<String>()
        )));
    }
    Ok(())
}

pub(super) fn put_link(mut link: Link, image: &Image) -> Result<Decision, ProposeError> {
    check_object_name("link", &link.name)?;
    check_object_name("site", &link.site)?;
    link.flows.iter().try_for_each(check_flow)?;
    let known = image.links.get(&link.name);
    link.revision = known.map_or(1, |known| known.revision + 1);
    if let Some(known) = known {
        link.created_ms = known.created_ms;
        if known.site != link.site || known.role != link.role {
            return Err(ProposeError::Exists {
                kind: "link".into(),
                name: link.name,
            });
        }
    }
    Ok(Decision::done(vec![Record::Link(link)]))
}

pub(super) fn pause_link(name: &str, paused: bool, image: &Image) -> Result<Decision, ProposeError> {
    let known = image.links.get(name).ok_or_else(|| unknown("link", name))?;
    if known.paused == paused {
        return Ok(Decision::done(Vec::new()));
    }
    let changed = Link {
        paused,
        ..Link::clone(known)
    };
    Ok(Decision::done(vec![Record::Link(changed)]))
}

/// A link takes its way to the core along; its copies stay and become ordinary topics.
pub(super) fn remove_link(name: String, image: &Image) -> Result<Decision, ProposeError> {
    if !image.links.contains_key(&name) {
        return Err(unknown("link", &name));
    }
    let is_copy = |topic: &&Arc<Topic>| topic.mirror.as_ref().is_some_and(|mirror| mirror.link == name);
    let mut records: Vec<Record> = image
        .topics
        .values()
        .filter(is_copy)
        .map(|topic| {
            let freed = Topic {
                mirror: None,
                ..Topic::clone(topic)
            };
            freed.header()
        })
        .collect();
    if image.upstreams.contains_key(&name) {
        records.push(Record::RemoveUpstream { link: name.clone() });
    }
    records.push(Record::RemoveLink { name });
    Ok(Decision::done(records))
}

pub(super) fn remove_upstream(link: String, image: &Image) -> Result<Decision, ProposeError> {
    let known: Option<&Arc<Upstream>> = image.upstreams.get(&link);
    match known {
        Some(_) => Ok(Decision::done(vec![Record::RemoveUpstream { link }])),
        None => Err(unknown("upstream", &link)),
    }
}
