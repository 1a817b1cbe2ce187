{{/* Every setting is a variable; `cellwall-agent --help` names them. */}}
{{- define "cellwall.agentEnv" -}}
- name: CELLWALL_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: CELLWALL_ENFORCEMENT
  value: {{ .Values.enforcement }}
- name: CELLWALL_EGRESS_TO_OWN_NODE
  value: {{ .Values.egressToOwnNode }}
- name: CELLWALL_HTTP
  value: {{ include "cellwall.httpAddress" . | quote }}
- name: CELLWALL_SOCKET
  value: {{ .Values.node.runFolder }}/agent.sock
{{- $remote := dig "remote" "port" 9965 .Values.AsMap | int64 }}
- name: CELLWALL_REMOTE_PORT
  value: {{ $remote | quote }}
{{- if $remote }}
{{- if eq $remote (int64 .Values.http.port) }}
{{- fail (printf "remote.port and http.port are both %d; an agent listens on two" $remote) }}
{{- end }}
- name: CELLWALL_REMOTE_SERVICE_ACCOUNT
  value: {{ include "cellwall.fullname" . }}-reader
- name: CELLWALL_POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: CELLWALL_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
- name: CELLWALL_BPFFS
  value: {{ .Values.node.bpffs }}
- name: CELLWALL_PIN_NAME
  value: {{ .Values.node.pinName }}
- name: CELLWALL_DISABLED_FILE
  value: {{ .Values.cni.confDir }}/cellwall.disabled
{{- with .Values.cni }}
{{- if .enabled }}
- name: CELLWALL_CNI_CONF_DIR
  value: {{ .confDir }}
- name: CELLWALL_CNI_FAILURE_POLICY
  value: {{ lower .failurePolicy }}
- name: CELLWALL_CNI_TIMEOUT
  value: {{ .timeoutSeconds | quote }}
- name: CELLWALL_CNI_EXEMPT_NAMESPACE
  value: {{ join "," .exemptNamespaces | quote }}
{{- end }}
{{- end }}
- name: CELLWALL_WAIT
  value: {{ .Values.waitSeconds | quote }}
- name: CELLWALL_MARK
  value: {{ .Values.mark | quote }}
{{- with .Values.podCIDRs }}
- name: CELLWALL_POD_CIDR
  value: {{ join "," . | quote }}
{{- end }}
{{- range $name, $rows := .Values.capacities }}
- name: CELLWALL_CAPACITY_{{ upper $name }}
  value: {{ int64 $rows | quote }}
{{- end }}
- name: CELLWALL_LOG
  value: {{ .Values.log.format }}
- name: RUST_LOG
  value: {{ .Values.log.level | quote }}
{{- if .Values.apiServer.host }}
{{ include "cellwall.apiServerEnv" . }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Both or none; the schema sees to that. */}}
{{- define "cellwall.apiServerEnv" -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.apiServer.host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.apiServer.port | quote }}
{{- end -}}

{{- define "cellwall.httpAddress" -}}
{{- $host := .Values.http.address -}}
{{- if contains ":" $host }}{{ $host = printf "[%s]" $host }}{{ end -}}
{{- printf "%s:%d" $host (int64 .Values.http.port) -}}
{{- end -}}

{{/* Arguments: root, path. */}}
{{- define "cellwall.probe" -}}
httpGet:
  host: {{ include "cellwall.probeHost" (index . 0) | quote }}
  port: http
  path: /{{ index . 1 }}
{{- end -}}

{{/* The kernel charges the tables to the container that made them. */}}
{{- define "cellwall.resources" -}}
{{- $agent := int64 .Values.memory.agentMiB -}}
{{- $full := include "cellwall.tablesMiB" (dict "root" . "state" "full") -}}
{{- $start := include "cellwall.tablesMiB" (dict "root" . "state" "start") -}}
# {{ $agent }} MiB for the agent, {{ $full }} for full tables. At the start a quarter, and {{ $start }}.
requests:
  cpu: {{ .Values.cpu.request }}
  memory: {{ .Values.memory.request | default (printf "%dMi" (add (div $agent 4) $start)) }}
limits:
  {{- with .Values.cpu.limit }}
  cpu: {{ . }}
  {{- end }}
  memory: {{ .Values.memory.limit | default (printf "%dMi" (add $agent $full)) }}
{{- end -}}
