{{- define "fairlead.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fairlead.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fairlead.labels" -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "fairlead.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "fairlead.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* What would install and then not run, or lose something, is said now. */ -}}
{{- define "fairlead.check" -}}
{{- $config := fromYaml .Values.config -}}
{{- if hasKey $config "Error" -}}
{{- fail (printf "config is not YAML: %s" $config.Error) -}}
{{- end -}}
{{- $gateway := default dict $config.gateway -}}
{{- if not $gateway.keys -}}
{{- fail "config: gateway.keys is empty, and a gateway that other machines reach must ask for a key: `fairlead key NAME` prints one and the line for the config" -}}
{{- end -}}
{{- $store := default dict $config.store -}}
{{- $database := .Values.database.existingSecret -}}
{{- if and $database (not (contains (printf "${%s}" .Values.database.variable) (toYaml $store))) -}}
{{- fail (printf "config: database.existingSecret is set, but the config's store does not name ${%s}" .Values.database.variable) -}}
{{- end -}}
{{- if and $database (ne (default "spool" $store.outage) "refuse") (not (hasPrefix "/var/lib/fairlead/" (default "" $store.spool))) -}}
{{- fail "config: store.spool must lie in /var/lib/fairlead, the only folder that can be written to (or say `outage: refuse`)" -}}
{{- end -}}
{{- if not $database -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- fail "replicas: a SQLite file belongs to one pod; more than one needs database.existingSecret" -}}
{{- end -}}
{{- if not (hasPrefix "/var/lib/fairlead/" (default "" $store.path)) -}}
{{- fail "config: store.path must lie in /var/lib/fairlead, the only folder that can be written to and the one that is kept" -}}
{{- end -}}
{{- end -}}
{{- $drain := float64 (default 10 $gateway.drain_seconds) -}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) (addf $drain .Values.preStopSeconds) -}}
{{- fail (printf "terminationGracePeriodSeconds must be more than preStopSeconds and the config's gateway.drain_seconds together (%v), or requests under way are cut off" (addf $drain .Values.preStopSeconds)) -}}
{{- end -}}
{{- end -}}
