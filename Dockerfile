# goms in a small image, as a user without rights. A node's role is the argument: `docker run goms gateway …`.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin goms

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tzdata && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 goms && install -d -o goms /var/lib/goms /run/goms
COPY --from=build /src/target/release/goms /usr/local/bin/goms
USER goms
# one node a container, so each has the admin port where HEALTHCHECK looks; with the host's network name others
ENV GOMS_DATA_DIR=/var/lib/goms GOMS_RUNTIME_DIR=/run/goms GOMS_ADMIN_PORT=8280
VOLUME /var/lib/goms
EXPOSE 8080 8443 8180 8280
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["goms", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["goms"]
CMD ["gateway", "--http-port", "8080", "--rpc-port", "8180"]
