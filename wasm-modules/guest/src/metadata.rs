//! What a module says about itself: name, version, description, parameters. The host reads it at upload; the user
//! interface builds its form from it.

/// Describes a module. Start with [`crate::package_metadata!`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) params: Vec<Param>,
}

impl Metadata {
    #[must_use]
    pub fn new(name: &str, version: &str, description: &str) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            description: description.into(),
            params: Vec::new(),
        }
    }

    /// Declares a parameter. The host refuses any that is not declared.
    #[must_use]
    pub fn param(mut self, param: Param) -> Self {
        self.params.push(param);
        self
    }
}

/// How the value of a parameter is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    Text,
    Integer,
    Float,
    Boolean,
    /// A number and a unit: ns, us, ms, s, m, h, d.
    Duration,
    /// The name of a lookup table.
    Table,
}

/// Declares one parameter: optional and without a default unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub(crate) name: String,
    pub(crate) kind: ParamKind,
    pub(crate) required: bool,
    pub(crate) default: Option<String>,
    pub(crate) description: String,
}

impl Param {
    /// `name` is lower case with hyphens; `description` is for the person who fills the parameter in.
    #[must_use]
    pub fn new(name: &str, kind: ParamKind, description: &str) -> Self {
        Self {
            name: name.into(),
            kind,
            required: false,
            default: None,
            description: description.into(),
        }
    }

    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The value where none is given. A parameter with a default is not required.
    #[must_use]
    pub fn default(mut self, value: &str) -> Self {
        self.default = Some(value.into());
        self.required = false;
        self
    }
}

/// [`Metadata`] with the name, version and description of the package it stands in.
#[macro_export]
macro_rules! package_metadata {
    () => {
        $crate::Metadata::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_DESCRIPTION"),
        )
    };
}
