"""Figures for others: Prometheus (extra ``metrics``) and OpenTelemetry (extra ``otel``), read when asked for."""
