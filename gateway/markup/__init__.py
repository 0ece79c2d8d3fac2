"""HTML that admins write and mail carries: read, judged, made safe. Pure; knows nothing of mail or configuration."""
