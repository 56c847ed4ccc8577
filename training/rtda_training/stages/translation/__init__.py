"""The stage that trains a pair of translators between the domains."""
