//! Tests against a cluster.
