//! What a runtime says in environment variables: the command, and in `CNI_ARGS` which pod it is about.

use std::ffi::OsString;

use crate::error::{Code, Error};

/// The environment.
pub(crate) struct Environment<F>(pub(crate) F);

/// The pod that a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Empty where the runtime does not tell it.
    pub(crate) uid: String,
}

impl<F: Fn(&str) -> Option<OsString>> Environment<F> {
    /// A variable; an error when it is not UTF-8.
    fn get(&self, name: &str) -> Result<Option<String>, Error> {
        let value = (self.0)(name).map(OsString::into_string).transpose();
        let value =
            value.map_err(|_| Error::new(Code::InvalidEnvironment, format!("{name} is not UTF-8")))?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// The command, in capitals.
    pub(crate) fn command(&self) -> Result<String, Error> {
        self.get("CNI_COMMAND")?.ok_or_else(|| {
            Error::new(
                Code::InvalidEnvironment,
                "CNI_COMMAND is not set: this program is called by a container runtime, not by hand",
            )
        })
    }

    /// The pod.
    pub(crate) fn pod(&self) -> Result<Pod, Error> {
        let args = self.get("CNI_ARGS")?.unwrap_or_default();
        let value = |wanted: &str| {
            let pairs = args.split(';').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == wanted).map(|(_, value)| value.to_owned()).next_back()
        };
        let needed = |key: &str| {
            value(key).filter(|value| !value.is_empty()).ok_or_else(|| {
                Error::new(
                    Code::InvalidEnvironment,
                    format!(
                        "CNI_ARGS has no {key}: this plugin is for pods of Kubernetes; take its entry out of \
                         configurations for anything else"
                    ),
                )
            })
        };
        Ok(Pod {
            namespace: needed("K8S_POD_NAMESPACE")?,
            name: needed("K8S_POD_NAME")?,
            uid: value("K8S_POD_UID").unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn environment(args: &'static str) -> Environment<impl Fn(&str) -> Option<OsString>> {
        Environment(move |name: &str| (name == "CNI_ARGS").then(|| OsString::from(args)))
    }

    #[test]
    fn the_pod_is_in_the_arguments() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b-0;K8S_POD_INFRA_CONTAINER_ID=9;K8S_POD_UID=u;=;x";
        let pod = environment(args).pod().expect("all there");
        assert_eq!(pod, Pod { namespace: "a".to_owned(), name: "b-0".to_owned(), uid: "u".to_owned() });
        let older = environment("K8S_POD_NAME=b;K8S_POD_NAMESPACE=a").pod().expect("all that is needed");
        assert_eq!(older.uid, "");
    }

    #[test]
    fn what_is_missing_is_named() {
        for args in ["", "K8S_POD_NAME=b", "K8S_POD_NAME=b;K8S_POD_NAMESPACE="] {
            let error = environment(args).pod().expect_err(args);
            assert!(error.message.contains("K8S_POD_NAMESPACE"), "{error}");
        }
        let error = environment("").command().expect_err("not set");
        assert_eq!(error.code, Code::InvalidEnvironment);
        let error =
            Environment(|_: &str| Some(OsString::from_vec(vec![0xff]))).command().expect_err("not UTF-8");
        assert!(error.message.contains("CNI_COMMAND is not UTF-8"), "{error}");
    }
}
