#!/bin/bash
# Turns KAFKA_* variables into properties, as apache/kafka does: KAFKA_NODE_ID is node.id. Formats the log directory once.
set -euo pipefail
properties=/tmp/server.properties
env | while IFS='=' read -r name value; do
    case $name in
        KAFKA_HEAP_OPTS) ;;
        KAFKA_*) key=${name#KAFKA_}; key=${key//_/.}; echo "${key,,}=$value" ;;
    esac
done >"$properties"
run=(java ${KAFKA_HEAP_OPTS:-} -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties)
if [ ! -f "$KAFKA_LOG_DIRS/meta.properties" ]; then
    "${run[@]}" kafka.tools.StorageTool format --cluster-id c3RhbXBlZGUtdGVzdC0wMQ --feature share.version=0 \
        --config "$properties"
fi
exec "${run[@]}" kafka.Kafka "$properties"
