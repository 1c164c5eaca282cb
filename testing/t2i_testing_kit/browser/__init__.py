"""A real Chromium without a window, for tests of pages and for their screenshots."""
