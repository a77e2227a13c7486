"""What the browser loads beside the HTML."""

from __future__ import annotations

from service.web.page import render


def test_tablers_dark_rules_are_found_in_its_stylesheet() -> None:
    """A release of Tabler that writes them otherwise is noticed here."""
    dark = render.contents()["tabler-dark.css"][0].decode()
    assert dark.startswith(":root{color-scheme:dark;")
    assert "--tblr-body-bg:" in dark
    assert ":root .form-select{" in dark
    assert "data-bs-theme" not in dark


def test_an_asset_changes_its_address_with_its_content() -> None:
    """The browser may keep it for a year."""
    addresses = {name: render.url_of(name) for name in render.contents()}
    assert len(set(addresses.values())) == 5
    assert all(address.startswith(f"/page/assets/{name}?v=") for name, address in addresses.items())
