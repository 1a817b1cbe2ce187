{{/* Name of the objects. */}}
{{- define "cellwall.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What pods are found by; it never changes. Argument: root, component. */}}
{{- define "cellwall.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of every object. Argument: root, component. */}}
{{- define "cellwall.labels" -}}
{{- $labels := include "cellwall.selector" . | fromYaml -}}
{{- $own := dict
    "app.kubernetes.io/version" .root.Chart.AppVersion
    "app.kubernetes.io/part-of" .root.Chart.Name
    "app.kubernetes.io/managed-by" .root.Release.Service
    "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- merge $labels $own .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* The image. */}}
{{- define "cellwall.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of the agents' service account. */}}
{{- define "cellwall.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "cellwall.fullname" .) -}}
{{- end -}}

{{/* What every pod of ours has. */}}
{{- define "cellwall.pod" -}}
# A Service called cellwall-http would else become the variable CELLWALL_HTTP_PORT.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  {{- with .Values.securityContext.seLinuxType }}
  seLinuxOptions:
    type: {{ . }}
  {{- end }}
  appArmorProfile:
    {{- toYaml .Values.securityContext.appArmorProfile | nindent 4 }}
  seccompProfile:
    {{- toYaml .Values.securityContext.seccompProfile | nindent 4 }}
{{- end -}}

{{/* What every container of ours has. Argument: a list of capabilities, empty where none is needed. */}}
{{- define "cellwall.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    {{- with . }}
    add: [{{ join ", " . }}]
    {{- end }}
{{- end -}}

{{/* MiB of the tables: the sum of rows times bytes, rounded up. Argument: root, state (full or start). */}}
{{- define "cellwall.tablesMiB" -}}
{{- $memory := .root.Files.Get "memory.yaml" | fromYaml -}}
{{- $bytes := 0 -}}
{{- range $name, $rows := .root.Values.capacities -}}
{{- $bytes = add $bytes (mul (int64 $rows) (int64 (index $memory $.state $name))) -}}
{{- end -}}
{{- add (div (add $bytes 1048575) 1048576) (int64 $memory.fixedMiB) -}}
{{- end -}}

{{/* Where the kubelet asks: an address that stands for all of them is none to connect to. */}}
{{- define "cellwall.probeHost" -}}
{{- get (dict "0.0.0.0" "127.0.0.1" "::" "::1") .Values.http.address | default .Values.http.address -}}
{{- end -}}
