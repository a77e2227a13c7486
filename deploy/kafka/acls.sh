#!/usr/bin/env bash
# Grant levelsync's Kafka user the rights that it needs, and no others. You may run this script any number of times.
#
#   deploy/kafka/acls.sh BROKER PRINCIPAL [GROUP]
#   deploy/kafka/acls.sh broker:9092 User:levelsync levelsync
#
# KAFKA_ACLS is the path of Kafka's own tool, kafka-acls.sh by default. KAFKA_ACLS_OPTIONS contains further options for
# it, such as "--command-config admin.properties". GROUP is LEVELSYNC_KAFKA_GROUP_ID. This user has no right to create
# topics, so create them yourself (docs/connecting.md) and set LEVELSYNC_KAFKA_CREATE_TOPICS=false.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
broker=$1 principal=$2 group=${3:-levelsync}

allow() {
    # shellcheck disable=SC2086 - the options and the tool may consist of several words
    ${KAFKA_ACLS:-kafka-acls.sh} --bootstrap-server "$broker" ${KAFKA_ACLS_OPTIONS:-} \
        --add --allow-principal "$principal" "$@"
}

# Topics that levelsync consumes: events, requests for a run, and the parts of a run.
allow --operation Read --topic progress.leveled-up --topic license.advanced \
    --topic sync.reconcile-requested --topic sync.reconcile-chunks
# Topics that levelsync publishes to: the sync. topics, and the event topics when it replays a dead letter.
allow --operation Write --topic sync. --resource-pattern-type prefixed
# doctor needs DescribeConfigs to check that no event topic is compacted.
allow --operation Write --operation DescribeConfigs --topic progress.leveled-up --topic license.advanced
# The consumer groups of the appliers and of the reconciler.
allow --operation Read --group "$group" --group "$group-reconcile"
