//! The message that a plan is, and the release of Substrait that it is of.
//!
//! Substrait changes what a message means from release to release. A plan of an
//! older one than is served would be read as another query (before 0.64, a limit of
//! zero rows is what no limit is since), and one of a newer may hold what is not
//! known here and passed over.

use datafusion_substrait::substrait::proto::{Plan, Version};
use datafusion_substrait::substrait::version;
use prost::Message;

use super::SentPlan;
use crate::error::{Error, Result};

/// The first release in which limits are told from their absence.
const OLDEST: (u32, u32) = (0, 64);

/// The release of the definitions that plans are read by.
const NEWEST: (u32, u32) = (
    version::SUBSTRAIT_MAJOR_VERSION,
    version::SUBSTRAIT_MINOR_VERSION,
);

/// The oldest and the newest release that is served.
pub(super) fn served() -> (String, String) {
    let (major, minor) = OLDEST;
    let newest = version::version();
    (
        format!("{major}.{minor}.0"),
        format!(
            "{}.{}.{}",
            newest.major_number, newest.minor_number, newest.patch_number
        ),
    )
}

/// The message, if it is of a release that is served.
pub(super) fn read(sent: &SentPlan) -> Result<Plan> {
    if sent.bytes.is_empty() {
        return Err(Error::InvalidArgument(
            "the request holds no plan: send one of Substrait, or a query as SQL".into(),
        ));
    }
    let plan = Plan::decode(&*sent.bytes).map_err(|error| malformed(&error))?;
    let said = match &*sent.version {
        "" => None,
        text => Some(parsed(text)?),
    };
    let own = plan.version.as_ref().map(release_of);
    let release = match (own, said) {
        (Some(own), Some(said)) if own != said => {
            return Err(Error::InvalidArgument(format!(
                "the plan says that it is of Substrait {} and the command says {}: leave the \
                 command's version empty",
                named(own),
                named(said)
            )));
        }
        (Some(release), _) | (None, Some(release)) => release,
        (None, None) => {
            return Err(Error::InvalidArgument(
                "the plan does not say of which release of Substrait it is: set its version, or \
                 that of the command"
                    .into(),
            ));
        }
    };
    if release < OLDEST || release > NEWEST {
        let (oldest, newest) = served();
        return Err(Error::InvalidArgument(format!(
            "the plan is of Substrait {} and this server takes {oldest} to {newest}: make it with \
             a release of these, or send the query as SQL",
            named(release)
        )));
    }
    Ok(plan)
}

fn release_of(version: &Version) -> (u32, u32) {
    (version.major_number, version.minor_number)
}

fn named((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

fn parsed(text: &str) -> Result<(u32, u32)> {
    let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([major, minor] | [major, minor, _]) => Ok((*major, *minor)),
        _ => Err(Error::InvalidArgument(format!(
            "{text:?} is no release of Substrait: write it as 0.85.0"
        ))),
    }
}

/// What is wrong with the bytes. Messages nest as deep as prost lets them, which is
/// what keeps a plan from overflowing the stack.
fn malformed(error: &prost::DecodeError) -> Error {
    let text = error.to_string();
    if text.contains("recursion limit") {
        return Error::InvalidArgument(
            "the plan's messages nest deeper than 100, which are about thirty expressions or fifty \
             relations inside each other: pass AND, OR and sums all their terms at once, or split \
             the query"
                .into(),
        );
    }
    Error::InvalidArgument(format!("the plan is no message of Substrait: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(own: Option<(u32, u32)>, said: &str) -> std::result::Result<(), String> {
        let version = own.map(|(major_number, minor_number)| Version {
            major_number,
            minor_number,
            ..Version::default()
        });
        let plan = Plan {
            version,
            // Without anything it is no bytes at all.
            expected_type_urls: vec!["none".into()],
            ..Plan::default()
        };
        let sent = SentPlan {
            bytes: plan.encode_to_vec().into(),
            version: said.into(),
        };
        read(&sent).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plan_is_of_a_release_that_is_served() {
        let (oldest, newest) = served();
        for (own, said) in [
            (Some(OLDEST), ""),
            (Some(NEWEST), ""),
            (Some(NEWEST), newest.as_str()),
            (None, newest.as_str()),
            (None, oldest.as_str()),
        ] {
            assert_eq!(answer(own, said), Ok(()), "{own:?} {said:?}");
        }
        for (own, said, says) in [
            (None, "", "does not say"),
            (Some((0, 63)), "", "takes 0.64.0 to"),
            (Some((NEWEST.0, NEWEST.1 + 1)), "", "takes 0.64.0 to"),
            (Some((1, 0)), "", "is of Substrait 1.0"),
            (Some(NEWEST), "0.70.0", "the command says 0.70"),
            (None, "latest", "no release of Substrait"),
            (None, "0.85.x", "no release of Substrait"),
        ] {
            let error = answer(own, said).unwrap_err();
            assert!(error.contains(says), "{own:?} {said:?}: {error}");
        }
    }
}
