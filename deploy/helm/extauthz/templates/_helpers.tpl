{{- define "extauthz.fullname" -}}
{{- if contains "extauthz" .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name }}-extauthz
{{- end -}}
{{- end -}}

{{- define "extauthz.selector" -}}
app.kubernetes.io/name: extauthz
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "extauthz.labels" -}}
{{ include "extauthz.selector" . }}
app.kubernetes.io/part-of: extauthz
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "extauthz.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "extauthz.configMap" -}}
{{ .Values.existingConfigMap | default (printf "%s-policies" (include "extauthz.fullname" .)) }}
{{- end -}}

{{- /* Options of serve as variables. Large numbers go through JSON: Helm's own text form of them has an exponent. */ -}}
{{- define "extauthz.options" -}}
{{- range $name, $value := .Values.config }}
- name: EXTAUTHZ_{{ $name | upper | replace "-" "_" }}
  {{- if kindIs "string" $value }}
  value: {{ $value | quote }}
  {{- else if kindIs "slice" $value }}
  value: {{ join " " $value | quote }}
  {{- else }}
  value: {{ $value | toJson | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "extauthz.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- end -}}
