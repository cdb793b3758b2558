# `kafka.sh broker` and `kafka.sh connect`: settings come from the variables that the real images read.
set -e
run() { exec java $1 -XX:+UseSerialGC -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties -cp '/opt/kafka/libs/*' $2 /tmp/kafka.properties; }
case "$1" in
  broker)
    env | grep '^KAFKA_' | grep -v HEAP | while IFS='=' read -r name value; do
      echo "$(echo "${name#KAFKA_}" | tr 'A-Z_' 'a-z.')=$value"
    done > /tmp/kafka.properties
    echo "log.dirs=/var/lib/kafka/data/log" >> /tmp/kafka.properties
    [ -f /var/lib/kafka/data/log/meta.properties ] || java -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format \
      -t c3RyYW5nbGVyLWNvbXBvc2U -c /tmp/kafka.properties
    run "$KAFKA_HEAP_OPTS" kafka.Kafka ;;
  connect)
    {
      echo "bootstrap.servers=$BOOTSTRAP_SERVERS"; echo "group.id=$GROUP_ID"
      echo "config.storage.topic=$CONFIG_STORAGE_TOPIC"; echo "offset.storage.topic=$OFFSET_STORAGE_TOPIC"
      echo "status.storage.topic=$STATUS_STORAGE_TOPIC"
      for what in config offset status; do echo "$what.storage.replication.factor=1"; done
      echo "offset.storage.partitions=1"; echo "status.storage.partitions=1"
      echo "key.converter=org.apache.kafka.connect.json.JsonConverter"
      echo "value.converter=org.apache.kafka.connect.json.JsonConverter"
      echo "listeners=http://0.0.0.0:8083"; echo "rest.advertised.host.name=connect"
      echo "plugin.path=/opt/kafka/plugins"; echo "plugin.discovery=service_load"; echo "offset.flush.interval.ms=1000"
      echo "config.providers=$CONNECT_CONFIG_PROVIDERS"
      echo "config.providers.env.class=$CONNECT_CONFIG_PROVIDERS_ENV_CLASS"
    } > /tmp/kafka.properties
    run "$HEAP_OPTS" org.apache.kafka.connect.cli.ConnectDistributed ;;
esac
