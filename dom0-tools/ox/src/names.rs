//! Names and numbers of domains.

use crate::failure::{Context, Failure};
use crate::host::{DomainState, Store, Toolstack};
use crate::records::Held;

/// Name of the control domain where xenstore has none.
pub const CONTROL_DOMAIN: &str = "Domain-0";

/// Path of a domain in xenstore.
pub fn path(domid: u16) -> String {
    format!("/local/domain/{domid}")
}

/// The name of a domain, if xenstore has one.
pub fn read_name(store: &mut dyn Store, domid: u16) -> Result<Option<String>, Failure> {
    let name = store
        .read(&format!("{}/name", path(domid)))
        .context(|| format!("read the name of domain {domid} in xenstore"))?;
    Ok(match name {
        None if domid == 0 => Some(CONTROL_DOMAIN.to_owned()),
        name => name,
    })
}

/// All domains of the hypervisor with their names.
pub fn all(host: &mut dyn Toolstack) -> Result<Vec<(DomainState, Option<String>)>, Failure> {
    let states = host
        .xen()?
        .domains()
        .context(|| "list the domains".to_owned())?;
    let store = match host.store() {
        Ok(store) => store,
        // Numbers and states are worth showing though the names are out of reach.
        Err(failure) => {
            log::warn!("no names of domains: {failure}");
            return Ok(states.into_iter().map(|state| (state, None)).collect());
        }
    };
    states
        .into_iter()
        .map(|state| {
            let name = read_name(store, state.domid)?;
            Ok((state, name))
        })
        .collect()
}

/// The domain that a word of the command line means: a number, or a name.
pub fn resolve(host: &mut dyn Toolstack, word: &str) -> Result<DomainState, Failure> {
    let nobody = || Failure::NoDomain(word.to_owned());
    if let Some(domid) = number(word) {
        let domid = domid.ok_or_else(nobody)?;
        let state = host.xen()?.domain(domid);
        return state
            .context(|| format!("look at domain {domid}"))?
            .ok_or_else(nobody);
    }
    host.store()?;
    all(host)?
        .into_iter()
        .find_map(|(state, name)| (name.as_deref() == Some(word)).then_some(state))
        .ok_or_else(nobody)
}

/// Several domains, or all if no word is given.
pub fn resolve_all(
    host: &mut dyn Toolstack,
    words: &[String],
) -> Result<Vec<(DomainState, Option<String>)>, Failure> {
    let all = all(host)?;
    if words.is_empty() {
        return Ok(all);
    }
    words
        .iter()
        .map(|word| {
            let wanted = number(word);
            let found = all.iter().find(|(state, name)| match wanted {
                Some(domid) => domid == Some(state.domid),
                None => name.as_deref() == Some(word),
            });
            found
                .cloned()
                .ok_or_else(|| Failure::NoDomain(word.clone()))
        })
        .collect()
}

/// A word of digits is a number, `Some(None)` if no domain can have it; any other word is a name.
pub fn number(word: &str) -> Option<Option<u16>> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok().filter(|domid| *domid < 0x7FF0))
}

/// Waits for the right to change something about a name.
pub fn hold(host: &dyn Toolstack, name: &str) -> Result<Held, Failure> {
    Held::take(&host.records(), name).context(|| format!("lock the name {name:?}"))
}

/// Numbers of the domains that xenstore knows with this name, whether they still exist or not.
pub fn with_name(store: &mut dyn Store, name: &str) -> Result<Vec<u16>, Failure> {
    let entries = store
        .list("/local/domain")
        .context(|| "list /local/domain in xenstore".to_owned())?;
    let mut found = Vec::new();
    for domid in entries.iter().filter_map(|entry| number(entry).flatten()) {
        if read_name(store, domid)?.as_deref() == Some(name) {
            found.push(domid);
        }
    }
    if name == CONTROL_DOMAIN && !found.contains(&0) {
        found.push(0);
    }
    Ok(found)
}

/// Fails if another domain than `except` has the name.
pub fn check_free(
    host: &mut dyn Toolstack,
    name: &str,
    except: Option<u16>,
) -> Result<(), Failure> {
    for domid in with_name(host.store()?, name)? {
        if Some(domid) == except {
            continue;
        }
        let there = host.xen()?.domain(domid);
        // A tree that a killed tool left behind holds no name.
        if there
            .context(|| format!("look at domain {domid}"))?
            .is_some()
        {
            return Err(Failure::NameTaken {
                name: name.to_owned(),
                domid,
            });
        }
    }
    Ok(())
}
