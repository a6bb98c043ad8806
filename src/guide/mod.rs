//! Guides, one for each role: what it does, how it is configured, how it is watched, what to do when something is wrong.
//!
//! A test reads every config and every command in them. All keys of a config stand in `config/config.yml`, all flags in
//! `goms COMMAND --help`.
//!
//! May import: nothing.

/// `goms up`: a whole cluster on a laptop.
pub mod up {
    #![doc = include_str!("up.md")]
}

/// `goms gateway`: the front door.
pub mod gateway {
    #![doc = include_str!("gateway.md")]
}

/// [`Service`](crate::Service) and `goms service`: what answers requests.
pub mod service {
    #![doc = include_str!("service.md")]
}

/// `goms trace-consumer`: the pipeline's end, and reading traces.
pub mod trace_consumer {
    #![doc = include_str!("trace_consumer.md")]
}

/// `goms cluster`, and a fleet on etcd, RabbitMQ and Elasticsearch.
pub mod cluster {
    #![doc = include_str!("cluster.md")]
}
