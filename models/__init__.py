"""The model zoo: small readable torch modules, downloads of trained models, and one small trained model that ships inside."""
