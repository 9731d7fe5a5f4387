//! Why a disk cannot be understood.

/// Why a text is no disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// A parameter has a value that it does not take.
    #[error("disk {spec:?}: {parameter} cannot be {value:?}; it takes {allowed}")]
    Value {
        /// The whole text.
        spec: String,
        /// The parameter.
        parameter: &'static str,
        /// What was written.
        value: String,
        /// What can be written.
        allowed: String,
    },
    /// A parameter is not known.
    #[error("disk {spec:?}: unknown parameter {name:?}{}", .nearest.map_or_else(String::new, |near| format!("; did you mean {near:?}?")))]
    Unknown {
        /// The whole text.
        spec: String,
        /// What was written.
        name: String,
        /// A known one like it.
        nearest: Option<&'static str>,
    },
    /// A parameter is given twice.
    #[error("disk {spec:?}: {parameter} is given twice")]
    Twice {
        /// The whole text.
        spec: String,
        /// The parameter.
        parameter: &'static str,
    },
    /// Something that has to be there is not.
    #[error("disk {spec:?}: {what}")]
    Incomplete {
        /// The whole text.
        spec: String,
        /// What is missing, and the way out.
        what: &'static str,
    },
}
