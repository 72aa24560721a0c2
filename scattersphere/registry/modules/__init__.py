"""The modules of one bundle version: their namespace and imports, and how they are released again."""
